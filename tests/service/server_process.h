#ifndef CUPOLA_TESTS_SERVICE_SERVER_PROCESS_H_
#define CUPOLA_TESTS_SERVICE_SERVER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/cpp/client.h"

namespace cupola::testing {

// A cupola_server of its own, on free ports. Its standard error goes to a file.
class ServerProcess {
 public:
  // Adds `--listen 127.0.0.1:0 --http 127.0.0.1:0` and waits for the line that
  // tells the ports; null when the server ends instead.
  static std::unique_ptr<ServerProcess> Start(
      const std::vector<std::string>& arguments, const std::string& log_path);
  ~ServerProcess();  // kill -9, unless it has ended

  int grpc_port() const { return grpc_port_; }
  int http_port() const { return http_port_; }
  std::string address() const;
  // Connected; fails the test otherwise.
  std::unique_ptr<Client> Connect(const ClientOptions& options = {}) const;
  // Returns when /readyz says so.
  void WaitUntilReady() const;

  // Of the process, as the system counts it.
  int64_t ResidentBytes() const;

  void Signal(int signal) const;
  // The exit code, or minus the signal that ended it.
  int Wait();

 private:
  ServerProcess() = default;
  pid_t pid_ = -1;
  int grpc_port_ = 0, http_port_ = 0;
};

// Runs the server's binary to its end: exit code and what it printed on both.
struct RunResult {
  int code = 0;
  std::string output, error;
};
RunResult RunServer(const std::vector<std::string>& arguments,
                    const std::string& scratch_folder);

std::string ReadWhole(const std::string& path);

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_SERVICE_SERVER_PROCESS_H_
