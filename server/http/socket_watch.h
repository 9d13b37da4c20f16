#ifndef CUPOLA_SERVER_HTTP_SOCKET_WATCH_H_
#define CUPOLA_SERVER_HTTP_SOCKET_WATCH_H_

#include <map>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace cupola::http {

// Ends what takes too long. CivetWeb's own limits are of silence: a client that
// sends, or takes, one byte in time keeps a thread for ever. Here a socket is
// shut down when its time is up (to a tenth of a second), and then CivetWeb's
// reading and writing fail. Any thread may call.
class SocketWatch {
 public:
  SocketWatch();
  ~SocketWatch();
  SocketWatch(const SocketWatch&) = delete;
  SocketWatch& operator=(const SocketWatch&) = delete;

  // From now on, the socket's time is up at `deadline`.
  void Set(int socket, absl::Time deadline);
  // To be called before the socket is closed. One that is not watched is fine.
  void Forget(int socket);

 private:
  void Run();

  absl::Mutex mu_;
  std::map<int, absl::Time> deadlines_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// The process's own socket of the connection from `address`:`port` to its port
// `own_port`; CivetWeb tells no more of it. Negative: there is none.
int FindSocket(const std::string& address, int port, int own_port);

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_SOCKET_WATCH_H_
