#ifndef CUPOLA_CLIENT_BENCH_CALLER_H_
#define CUPOLA_CLIENT_BENCH_CALLER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/bench/mix.h"
#include "client/bench/outcome.h"

namespace cupola::bench {

struct CallerOptions {
  std::string address;  // HOST:PORT
  int64_t connections = 1;
  absl::Duration deadline = absl::Seconds(60);  // of each call
  std::string token;                            // empty: none is presented
  std::string tls_ca_file;                      // PEM; empty: no TLS
};

// What is asked about, as the server's catalog has it.
struct Subject {
  std::string model, dictionary;
  int64_t vocabulary = 0, context = 0;
};

// Sends questions to a server, asynchronously: thousands may be in flight, over
// a few connections and on gRPC's few threads. Nothing is retried. Any thread
// may call.
class Caller {
 public:
  // UNAVAILABLE where no server answers within 10 seconds.
  static absl::StatusOr<std::unique_ptr<Caller>> Connect(
      const CallerOptions& options);
  // REQUIRES: no call is in flight.
  ~Caller();
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  // Looks `dictionary` (empty: the server's first one) and its model up.
  absl::StatusOr<Subject> Find(const std::string& dictionary);

  void Send(const Subject& subject, const Question& question,
            std::function<void(Outcome)> done);
  // Ends the calls in flight; their `done`s are told CANCELLED.
  void CancelAll();

 private:
  class Impl;
  explicit Caller(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_CALLER_H_
