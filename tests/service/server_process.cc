#include "tests/service/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/service/http_get.h"

namespace cupola::testing {
namespace {

// Starts the binary with these files as its output.
pid_t Spawn(const std::vector<std::string>& arguments, int output, int error) {
  std::vector<char*> argv = {const_cast<char*>(CUPOLA_SERVER_BINARY)};
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(output, STDOUT_FILENO);
    ::dup2(error, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  return pid;
}

int ExitCode(pid_t pid) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int OpenForWriting(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

}  // namespace

std::unique_ptr<ServerProcess> ServerProcess::Start(
    const std::vector<std::string>& arguments, const std::string& log_path) {
  std::vector<std::string> all = arguments;
  all.insert(all.end(), {"--listen=127.0.0.1:0", "--http=127.0.0.1:0"});
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) return nullptr;
  const int log = OpenForWriting(log_path);
  std::unique_ptr<ServerProcess> server(new ServerProcess());
  server->pid_ = Spawn(all, pipe[1], log);
  ::close(pipe[1]);
  ::close(log);
  FILE* output = ::fdopen(pipe[0], "r");
  char line[512] = "";
  const bool told =
      std::fgets(line, sizeof line, output) != nullptr &&
      std::sscanf(line, "cupola: listening grpc=127.0.0.1:%d http=127.0.0.1:%d",
                  &server->grpc_port_, &server->http_port_) == 2;
  std::fclose(output);
  if (!told) {
    ADD_FAILURE() << "the server does not start: " << ReadWhole(log_path);
    return nullptr;
  }
  return server;
}

ServerProcess::~ServerProcess() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ExitCode(pid_);
}

std::string ServerProcess::address() const {
  return "127.0.0.1:" + std::to_string(grpc_port_);
}

std::unique_ptr<Client> ServerProcess::Connect(
    const ClientOptions& options) const {
  auto client = Client::Connect(address(), options);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

void ServerProcess::WaitUntilReady() const {
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  while (HttpGet(http_port_, "/readyz").rfind("HTTP/1.1 200", 0) != 0) {
    ASSERT_LT(absl::Now(), limit) << "the catalog does not load";
    absl::SleepFor(absl::Milliseconds(5));
  }
}

int64_t ServerProcess::ResidentBytes() const {
  // The second number: pages.
  std::ifstream file("/proc/" + std::to_string(pid_) + "/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

void ServerProcess::Signal(int signal) const { ::kill(pid_, signal); }

int ServerProcess::Wait() {
  const int code = ExitCode(pid_);
  pid_ = -1;
  return code;
}

RunResult RunServer(const std::vector<std::string>& arguments,
                    const std::string& scratch_folder) {
  const std::string output_path = scratch_folder + "/output";
  const std::string error_path = scratch_folder + "/error";
  const int output = OpenForWriting(output_path);
  const int error = OpenForWriting(error_path);
  RunResult result;
  result.code = ExitCode(Spawn(arguments, output, error));
  ::close(output);
  ::close(error);
  result.output = ReadWhole(output_path);
  result.error = ReadWhole(error_path);
  return result;
}

std::string ReadWhole(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace cupola::testing
