#ifndef CUPOLA_SERVER_ENGINE_FLIGHT_H_
#define CUPOLA_SERVER_ENGINE_FLIGHT_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/request_context.h"
#include "server/engine/wait_list.h"
#include "storage/result_cache.h"

namespace cupola::engine {

struct PartTiming {
  double queue = 0;    // seconds waited
  double compute = 0;  // seconds of the batch it ran in
};

// A record that has been computed.
struct Landed {
  std::shared_ptr<const storage::Record> record;
  PartTiming timing;
};

class Flights;

// A record on its way, and everybody who waits for it: requests that ask for
// the same while it is computed share one flight. Each passenger keeps a
// deadline and a cancellation of its own: who gives up is told, the flight goes
// on while anybody is left. Thread-safe.
class Flight {
 public:
  using Done = std::function<void(absl::StatusOr<Landed>)>;

  struct Passenger {
    RequestContext context;
    // Called once: by whoever lands the flight or, where there are several
    // passengers, when this one's own time is up.
    Done done;
    // What a passenger who is not the first does when the flight never took
    // off, with what is `done` by now: look for another one.
    std::function<void(Done)> again;
  };

  // A flight that nobody else can board.
  explicit Flight(Passenger passenger);

  // OK while somebody waits, else why the last passenger does not.
  absl::Status StillWanted() const;

  // Tells all passengers; exactly one of these two is called, once.
  void Land(absl::StatusOr<Landed> landed);
  // Nothing was tried yet, for reasons of the first passenger's own (`status`):
  // the others try for themselves.
  void Abandon(const absl::Status& status);

 private:
  friend class Flights;
  std::vector<Passenger> TakePassengers();

  // Set before anybody else sees this, where the flight is one of a table's.
  Flights* table_ = nullptr;
  std::optional<storage::CacheKey> key_;
  bool listed_ = false;

  mutable absl::Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Passenger> passengers_ ABSL_GUARDED_BY(mu_);
};

// All flights there are, by what they bring. Any thread may call.
class Flights {
 public:
  // `keep` stores what has landed, before its flight leaves the table; null:
  // nothing does.
  using Keep = std::function<void(
      const storage::CacheKey&, const std::shared_ptr<const storage::Record>&)>;
  explicit Flights(Keep keep) : keep_(std::move(keep)) {}

  // Null: the passenger boarded a flight that is on its way. Else a new one,
  // with the passenger as its first, which the caller brings to its end.
  std::shared_ptr<Flight> Board(const storage::CacheKey& key,
                                Flight::Passenger passenger);
  // Always a new flight, of one passenger for good, whose record is kept.
  std::shared_ptr<Flight> Charter(const storage::CacheKey& key,
                                  Flight::Passenger passenger);

  // How many flights have ended: who has looked for a record in vain looks
  // again when the number has changed meanwhile.
  uint64_t ended() const { return ended_; }
  int64_t in_flight() const;

 private:
  friend class Flight;
  void Remove(const Flight& flight);

  const Keep keep_;
  std::atomic<uint64_t> ended_{0};
  mutable absl::Mutex mu_;  // before any Flight::mu_
  absl::flat_hash_map<storage::Digest, std::shared_ptr<Flight>> flights_
      ABSL_GUARDED_BY(mu_);
  WaitList waiting_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_FLIGHT_H_
