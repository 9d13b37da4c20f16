#include "server/http/socket_watch.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"

namespace cupola::http {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(100);

// One end of a socket; without a port where it has none, or is no socket.
struct End {
  sockaddr_storage name = {};
  socklen_t size = sizeof name;

  int port() const {
    if (name.ss_family == AF_INET) {
      return ntohs(reinterpret_cast<const sockaddr_in&>(name).sin_port);
    }
    if (name.ss_family == AF_INET6) {
      return ntohs(reinterpret_cast<const sockaddr_in6&>(name).sin6_port);
    }
    return -1;
  }
  // In numbers, as CivetWeb writes it.
  std::string address() const {
    char text[NI_MAXHOST] = "";
    const auto* end = reinterpret_cast<const sockaddr*>(&name);
    ::getnameinfo(end, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
    return text;
  }
};

template <typename GetName>
End EndOf(int socket, GetName get_name) {
  End end;
  if (get_name(socket, reinterpret_cast<sockaddr*>(&end.name), &end.size) !=
      0) {
    end.name.ss_family = AF_UNSPEC;
  }
  return end;
}

}  // namespace

SocketWatch::SocketWatch() : thread_([this] { Run(); }) {}

SocketWatch::~SocketWatch() {
  {
    absl::MutexLock lock(&mu_);
    ended_ = true;
  }
  thread_.join();
}

void SocketWatch::Set(int socket, absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  deadlines_[socket] = deadline;
}

void SocketWatch::Forget(int socket) {
  absl::MutexLock lock(&mu_);
  deadlines_.erase(socket);
}

void SocketWatch::Run() {
  const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return ended_ || !deadlines_.empty();
  };
  absl::MutexLock lock(&mu_);
  while (!ended_) {
    const absl::Time now = absl::Now();
    for (auto& [socket, deadline] : deadlines_) {
      if (now < deadline) continue;
      ::shutdown(socket, SHUT_RDWR);
      deadline = absl::InfiniteFuture();
    }
    mu_.AwaitWithTimeout(absl::Condition(&ended_), kLookEvery);
    mu_.Await(absl::Condition(&has_work));
  }
}

int FindSocket(const std::string& address, int port, int own_port) {
  std::error_code error;
  const std::filesystem::directory_iterator end;
  for (std::filesystem::directory_iterator file("/proc/self/fd", error);
       !error && file != end; file.increment(error)) {
    int number = -1;
    if (!absl::SimpleAtoi(file->path().filename().string(), &number)) continue;
    // There may be thousands: of most, the port tells enough.
    const End peer = EndOf(number, ::getpeername);
    if (peer.port() == port &&
        EndOf(number, ::getsockname).port() == own_port &&
        peer.address() == address) {
      return number;
    }
  }
  return -1;
}

}  // namespace cupola::http
