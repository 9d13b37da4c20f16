#ifndef CUPOLA_SERVER_FLAGS_H_
#define CUPOLA_SERVER_FLAGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cupola {

struct Address {
  std::string host;  // IPv6 in brackets, as it was given
  int port = 0;
};

// The server's command line. See FlagsHelp for what each one means.
struct Flags {
  std::string catalog;
  Address listen = {"127.0.0.1", 7070};
  bool http_enabled = true;
  Address http = {"127.0.0.1", 7071};
  // Of the gRPC port; HTTP is plain, so where certificates are all that tells
  // clients apart, it has no /v1.
  std::string tls_cert, tls_key, tls_client_ca;
  // Where to listen for others without TLS: "false", "true" (on both ports),
  // "grpc" or "http".
  std::string insecure_public = "false";
  std::string tokens;
  int64_t client_requests_per_minute = 0;
  int64_t client_bytes_per_minute = 0;
  int64_t client_concurrent = 0;
  std::vector<std::string> http_hosts, http_origins;
  int64_t http_answer_bytes = 64LL << 20;
  std::string cache_dir;
  int64_t cache_bytes = 10LL << 30;
  int64_t cache_memory_bytes = 128LL << 20;
  std::string device = "auto";
  int64_t device_memory = 0;
  int64_t min_residency_seconds = 1;
  int64_t host_memory = 8LL << 30;
  std::string model_root;
  std::string upload_dir;
  int64_t upload_bytes = 10LL << 30;
  int64_t upload_idle_seconds = 60;
  int64_t batch_tokens = 4096;
  int64_t product_bytes = 2LL << 30;
  int64_t max_tokens_per_request = 1 << 18;
  int64_t request_memory = 8LL << 30;
  int64_t max_queued_prompts = 1 << 16;
  int64_t max_queued_prompts_per_client = 1 << 15;
  int64_t front_threads = 4;
  int64_t threads = 0;
  bool self_check = true;
  bool reflection = false;
  int64_t drain_seconds = 30;
  int64_t job_checkpoint_seconds = 30;
  int64_t dataset_bytes = int64_t{64} << 30, job_bytes = int64_t{64} << 30;
  int64_t store_bytes = int64_t{64} << 30, store_keep_hours = 0;
  int64_t job_memory = int64_t{16} << 30;
  int64_t dataset_keep_hours = 0, job_keep_hours = 0;  // 0: for good
  std::string log_level = "info";
  // Either makes the others optional.
  bool help = false;
  bool version = false;
};

// Reads `--name=value` and `--name value`; for switches also `--name` and
// `--no-name`. Sizes take the suffixes K, M, G and T (powers of 1024).
// INVALID_ARGUMENT, one line: an unknown flag, a flag without its value, a
// value that is not acceptable (with what is), a flag given twice, no catalog,
// or an address that others can reach without TLS and without
// --insecure_public.
absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments);

// The text of --help.
std::string FlagsHelp();

}  // namespace cupola

#endif  // CUPOLA_SERVER_FLAGS_H_
