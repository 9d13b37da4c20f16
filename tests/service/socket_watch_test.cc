#include "server/http/socket_watch.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace cupola::http {
namespace {

// Both ends of a connection over the loopback.
class SocketWatchTest : public ::testing::Test {
 protected:
  SocketWatchTest() {
    const int listening = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* name = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listening, name, size), 0);
    EXPECT_EQ(::listen(listening, 1), 0);
    EXPECT_EQ(::getsockname(listening, name, &size), 0);
    port_ = ntohs(address.sin_port);
    client_ = ::socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(::connect(client_, name, size), 0);
    EXPECT_EQ(::getsockname(client_, name, &size), 0);
    client_port_ = ntohs(address.sin_port);
    server_ = ::accept(listening, nullptr, nullptr);
    ::close(listening);
  }
  ~SocketWatchTest() override {
    ::close(client_);
    ::close(server_);
  }

  // Whether reading at the server's end ends within so long.
  bool Ends(int milliseconds) const {
    pollfd state = {server_, POLLIN, 0};
    char byte = 0;
    return ::poll(&state, 1, milliseconds) == 1 &&
           ::recv(server_, &byte, 1, 0) == 0;
  }

  int client_ = -1, server_ = -1;
  int port_ = 0, client_port_ = 0;
};

TEST_F(SocketWatchTest, FindsTheSocket) {
  EXPECT_EQ(FindSocket("127.0.0.1", client_port_, port_), server_);
  EXPECT_EQ(FindSocket("127.0.0.1", port_, client_port_), client_);
  EXPECT_LT(FindSocket("127.0.0.2", client_port_, port_), 0);
  EXPECT_LT(FindSocket("127.0.0.1", client_port_, client_port_), 0);
}

TEST_F(SocketWatchTest, EndsWhatTakesTooLong) {
  SocketWatch watch;
  watch.Set(server_, absl::InfiniteFuture());
  EXPECT_FALSE(Ends(250));
  watch.Set(server_, absl::Now());
  EXPECT_TRUE(Ends(30'000));
  char byte = 0;
  EXPECT_EQ(::recv(client_, &byte, 1, 0), 0);  // the client sees it, too
}

TEST_F(SocketWatchTest, ForgetsInTime) {
  SocketWatch watch;
  watch.Set(server_, absl::Now() + absl::Milliseconds(200));
  watch.Forget(server_);
  watch.Forget(12345);
  EXPECT_FALSE(Ends(600));
}

}  // namespace
}  // namespace cupola::http
