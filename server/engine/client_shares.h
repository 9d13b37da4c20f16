#ifndef CUPOLA_SERVER_ENGINE_CLIENT_SHARES_H_
#define CUPOLA_SERVER_ENGINE_CLIENT_SHARES_H_

#include <cstdint>
#include <map>

namespace cupola::engine {

// How much each client of one queue has been given: whoever has had the least
// comes next. A client who comes back after a pause starts level with the one
// who has had the least of those that wait, so a pause earns no credit and
// costs none (start-time fair queueing, Goyal, Vin and Cheng 1996). Not
// thread-safe.
class ClientShares {
 public:
  void Enter(uint64_t client, int64_t parts = 1);  // into the queue
  void Leave(uint64_t client);                     // one part, whatever for
  void Give(uint64_t client, double amount);

  int64_t waiting_clients() const;
  int64_t queued(uint64_t client) const;
  double given(uint64_t client) const;

 private:
  struct Share {
    int64_t queued = 0;
    double given = 0;
  };
  double Floor() const;

  std::map<uint64_t, Share> shares_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_CLIENT_SHARES_H_
