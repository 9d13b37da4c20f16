#include "tests/service/http_get.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace cupola::testing {

HttpClient::HttpClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address),
                         sizeof address) == 0;
}

HttpClient::~HttpClient() { ::close(socket_); }

bool HttpClient::Send(const std::string& bytes) {
  return connected_ &&
         ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
             static_cast<ssize_t>(bytes.size());
}

std::string HttpClient::Read(size_t bytes) {
  std::string answer(bytes, '\0');
  size_t got = 0;
  while (got < bytes) {
    const ssize_t piece = ::recv(socket_, answer.data() + got, bytes - got, 0);
    if (piece <= 0) break;
    got += static_cast<size_t>(piece);
  }
  answer.resize(got);
  return answer;
}

std::string HttpClient::ReadAll() {
  constexpr size_t kPiece = 1 << 16;
  std::string answer, piece;
  do {
    piece = Read(kPiece);
    answer += piece;
  } while (piece.size() == kPiece);
  return answer;
}

std::string HttpExchange(int port, const std::string& request) {
  HttpClient client(port);
  return client.Send(request) ? client.ReadAll() : "";
}

std::string HttpGet(int port, const std::string& path) {
  return HttpExchange(port, "GET " + path +
                                " HTTP/1.1\r\nHost: localhost\r\n"
                                "Connection: close\r\n\r\n");
}

}  // namespace cupola::testing
