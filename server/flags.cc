#include "server/flags.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace cupola {
namespace {

constexpr int64_t kMaxKeepHours = 24 * 365 * 100;
// Such an answer lies in memory several times over.
constexpr int64_t kMaxHttpAnswerBytes = 1LL << 30;

using Setter = std::function<absl::Status(const std::string&)>;

// One flag: how it is written, what it means, and how its value is kept.
struct FlagSpec {
  std::string name;
  std::string value;  // its placeholder; empty for a switch
  std::string help;
  Setter set;
};

absl::Status Refuse(absl::string_view value, absl::string_view accepted) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", value, "\"; accepted: ", accepted));
}

Setter Text(std::string* target) {
  return [target](const std::string& value) {
    if (value.empty()) return Refuse(value, "not empty");
    *target = value;
    return absl::OkStatus();
  };
}

// Names apart by commas.
Setter List(std::vector<std::string>* target) {
  return [target](const std::string& value) {
    std::vector<std::string> items = absl::StrSplit(value, ',');
    for (const std::string& item : items) {
      if (item.empty()) return Refuse(value, "names apart by commas");
    }
    *target = std::move(items);
    return absl::OkStatus();
  };
}

Setter OneOf(std::string* target, std::vector<std::string> accepted) {
  return [target, accepted](const std::string& value) {
    if (std::find(accepted.begin(), accepted.end(), value) == accepted.end()) {
      std::string list = accepted.front();
      for (size_t i = 1; i < accepted.size(); ++i) {
        absl::StrAppend(&list, ", ", accepted[i]);
      }
      return Refuse(value, list);
    }
    *target = value;
    return absl::OkStatus();
  };
}

Setter Switch(bool* target) {
  return [target](const std::string& value) {
    if (value != "true" && value != "false") {
      return Refuse(value, "true or false");
    }
    *target = value == "true";
    return absl::OkStatus();
  };
}

Setter Number(int64_t* target, int64_t least, int64_t most) {
  return [=](const std::string& value) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number < least || number > most) {
      return Refuse(value, absl::StrCat("a number from ", least, " to ", most));
    }
    *target = number;
    return absl::OkStatus();
  };
}

// 10G and 1048576, without signs or fractions.
Setter Size(int64_t* target,
            int64_t most = std::numeric_limits<int64_t>::max()) {
  return [=](const std::string& value) {
    static constexpr absl::string_view kSuffixes = "KMGT";
    absl::string_view digits = value;
    int shift = 0;
    if (!digits.empty()) {
      const size_t suffix = kSuffixes.find(digits.back());
      if (suffix != absl::string_view::npos) {
        shift = 10 * (static_cast<int>(suffix) + 1);
        digits.remove_suffix(1);
      }
    }
    int64_t number = 0;
    if (!absl::SimpleAtoi(digits, &number) || number < 0 ||
        number > (std::numeric_limits<int64_t>::max() >> shift)) {
      return Refuse(value, "bytes, as in 1048576, 512M or 10G");
    }
    if (number << shift > most) {
      return Refuse(value, absl::StrCat("at most ", most, " bytes"));
    }
    *target = number << shift;
    return absl::OkStatus();
  };
}

absl::Status SetAddress(const std::string& value, Address* target) {
  const size_t colon = value.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(value.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return Refuse(value, "HOST:PORT, port 0 for a free one");
  }
  const std::string host = value.substr(0, colon);
  const bool bracketed = host.front() == '[' && host.back() == ']';
  if (!bracketed && absl::StrContains(host, ":")) {
    return Refuse(value, "an IPv6 address in brackets, as in [::1]:7070");
  }
  *target = {host, port};
  return absl::OkStatus();
}

Setter Listen(Address* target) {
  return
      [target](const std::string& value) { return SetAddress(value, target); };
}

// An address, or "off".
Setter OptionalListen(bool* enabled, Address* target) {
  return [=](const std::string& value) {
    *enabled = value != "off";
    return *enabled ? SetAddress(value, target) : absl::OkStatus();
  };
}

std::vector<FlagSpec> Specs(Flags* f) {
  return {
      {"catalog", "FILE",
       "the models and dictionaries to serve, in Protobuf's text format "
       "(required)",
       Text(&f->catalog)},
      {"listen", "HOST:PORT", "the gRPC address; 127.0.0.1:7070; port 0: any",
       Listen(&f->listen)},
      {"http", "HOST:PORT|off",
       "/metrics, /healthz, /readyz and JSON at /v1; 127.0.0.1:7071; port 0: "
       "any",
       OptionalListen(&f->http_enabled, &f->http)},
      {"tls_cert", "FILE", "serve gRPC with this certificate chain (PEM)",
       Text(&f->tls_cert)},
      {"tls_key", "FILE", "the certificate's key (PEM)", Text(&f->tls_key)},
      {"tls_client_ca", "FILE",
       "ask clients for a certificate of this authority (PEM); over HTTP, "
       "which is plain, there is then no /v1 without --tokens",
       Text(&f->tls_client_ca)},
      {"insecure_public", "",
       "listen on addresses that others can reach without TLS; "
       "--insecure_public=grpc or =http: only there; off",
       OneOf(&f->insecure_public, {"false", "true", "grpc", "http"})},
      {"tokens", "FILE",
       "ask for a bearer token of this file (cupola token makes its lines)",
       Text(&f->tokens)},
      {"client_requests_per_minute", "N",
       "of one client, unless its token says otherwise; 0: any number",
       Number(&f->client_requests_per_minute, 0, 1LL << 40)},
      {"client_bytes_per_minute", "SIZE",
       "of one client's requests and answers; 0: any number",
       Size(&f->client_bytes_per_minute)},
      {"client_concurrent", "N",
       "of one client's requests at a time; 0: any number",
       Number(&f->client_concurrent, 0, 1LL << 40)},
      {"http_hosts", "NAME,...",
       "names that browsers may know the HTTP port by, beside addresses and "
       "localhost",
       List(&f->http_hosts)},
      {"http_origins", "ORIGIN,...",
       "pages of these origins may use the HTTP port, as in "
       "https://lab.example",
       List(&f->http_origins)},
      {"http_answer_bytes", "SIZE", "larger answers go over gRPC only; 64M",
       Size(&f->http_answer_bytes, kMaxHttpAnswerBytes)},
      {"cache_dir", "DIR", "keep answers here; without it nothing is cached",
       Text(&f->cache_dir)},
      {"cache_bytes", "SIZE", "the cache's cap on disk; 10G",
       Size(&f->cache_bytes)},
      {"cache_memory_bytes", "SIZE", "the cache's hot tier in memory; 128M",
       Size(&f->cache_memory_bytes)},
      {"device", "auto|cpu|cuda:N[,...]",
       "where models compute; of several, each entry goes where there is room; "
       "auto: all GPUs, else the CPU",
       Text(&f->device)},
      {"device_memory", "SIZE",
       "weights that each device may hold: entries load on demand and the "
       "least "
       "recently used leave; 0: no limit",
       Size(&f->device_memory)},
      {"min_residency_seconds", "N",
       "an entry stays loaded for as long before another takes its room, "
       "unless "
       "the request that waits cannot; 1",
       Number(&f->min_residency_seconds, 0, 86400)},
      {"host_memory", "SIZE",
       "page-locked copies of dictionaries on GPUs, so that evicted ones come "
       "back without the disk; 8G; 0: none",
       Size(&f->host_memory)},
      {"model_root", "DIR",
       "refuse catalog paths outside this folder; where clients may register "
       "models and dictionaries",
       Text(&f->model_root)},
      {"upload_dir", "DIR",
       "keep uploaded dictionaries here; without it, below --cache_dir",
       Text(&f->upload_dir)},
      {"upload_bytes", "SIZE", "all uploaded dictionaries together; 10G",
       Size(&f->upload_bytes)},
      {"upload_idle_seconds", "N",
       "an upload that sends nothing for so long ends; 60",
       Number(&f->upload_idle_seconds, 1, 86400)},
      {"threads", "N", "computing threads of the CPU; 0: one per core",
       Number(&f->threads, 0, 4096)},
      {"batch_tokens", "N", "a device batch's budget of tokens; 4096",
       Number(&f->batch_tokens, 1, 1 << 24)},
      {"product_bytes", "SIZE",
       "constants kept for questions about two dictionaries around an MLP; "
       "without, these are slower; 2G",
       Size(&f->product_bytes)},
      {"max_tokens_per_request", "N", "larger requests are refused; 262144",
       Number(&f->max_tokens_per_request, 1, 1 << 30)},
      {"request_memory", "SIZE",
       "what requests in flight on a device may take together, by their own "
       "estimates; 8G",
       Size(&f->request_memory)},
      {"max_queued_prompts", "N",
       "when as many wait for a device, more are refused; 65536",
       Number(&f->max_queued_prompts, 1, 1 << 24)},
      {"max_queued_prompts_per_client", "N", "and of one client's; 32768",
       Number(&f->max_queued_prompts_per_client, 1, 1 << 24)},
      {"front_threads", "N", "threads that tokenize and read the cache; 4",
       Number(&f->front_threads, 1, 256)},
      {"self_check", "", "measure dictionaries when they load; on",
       Switch(&f->self_check)},
      {"reflection", "", "answer gRPC reflection; off", Switch(&f->reflection)},
      {"drain_seconds", "N",
       "after SIGTERM, requests in flight have as long to finish; 30",
       Number(&f->drain_seconds, 0, 86400)},
      {"job_checkpoint_seconds", "N",
       "a job saves its state when so much time has gone by; 30",
       Number(&f->job_checkpoint_seconds, 0, 86400)},
      {"dataset_bytes", "SIZE", "what datasets may take on the disk; 64G",
       Size(&f->dataset_bytes)},
      {"dataset_keep_hours", "N",
       "a dataset is deleted after so long at the latest; 0: never",
       Number(&f->dataset_keep_hours, 0, kMaxKeepHours)},
      {"job_bytes", "SIZE", "what jobs' states may take on the disk; 64G",
       Size(&f->job_bytes)},
      {"job_memory", "SIZE",
       "memory that jobs' states and results may take together; 16G",
       Size(&f->job_memory)},
      {"job_keep_hours", "N",
       "a job that has ended, and its result, are deleted after so long at the "
       "latest; 0: never",
       Number(&f->job_keep_hours, 0, kMaxKeepHours)},
      {"store_bytes", "SIZE",
       "what stored activations may take on the disk; 64G",
       Size(&f->store_bytes)},
      {"store_keep_hours", "N",
       "stored activations are deleted so long after their making; 0: never",
       Number(&f->store_keep_hours, 0, kMaxKeepHours)},
      {"log_level", "debug|info|warning|error|off",
       "JSON lines on standard error; info",
       OneOf(&f->log_level, {"debug", "info", "warning", "error", "off"})},
      {"help", "", "print this and exit", Switch(&f->help)},
      {"version", "", "print the version and exit", Switch(&f->version)},
  };
}

// A loopback address or name: nobody else can reach it.
bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "[::1]" ||
         (absl::StartsWith(host, "127.") &&
          host.find_first_not_of("0123456789.") == std::string::npos);
}

absl::Status CheckSecurity(const Flags& flags) {
  const bool tls = !flags.tls_cert.empty();
  if (tls != !flags.tls_key.empty()) {
    return absl::InvalidArgumentError(
        "--tls_cert and --tls_key are given together or not at all");
  }
  if (!tls && !flags.tls_client_ca.empty()) {
    return absl::InvalidArgumentError("--tls_client_ca needs --tls_cert");
  }
  const auto check = [&](const char* name, const Address& address,
                         absl::string_view port, bool encrypted) {
    const bool wanted =
        flags.insecure_public == "true" || flags.insecure_public == port;
    if (encrypted || wanted || IsLoopback(address.host)) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "--", name, " is ", address.host, ":", address.port,
        ", which others can reach, without TLS; accepted: a loopback address, ",
        tls ? "" : "--tls_cert with --tls_key (gRPC only), ",
        "or --insecure_public=", port));
  };
  absl::Status status = check("listen", flags.listen, "grpc", tls);
  if (status.ok() && flags.http_enabled) {
    status = check("http", flags.http, "http", false);
  }
  return status;
}

const FlagSpec* Find(const std::vector<FlagSpec>& specs,
                     absl::string_view name) {
  for (const FlagSpec& spec : specs) {
    if (spec.name == name) return &spec;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments) {
  Flags flags;
  const std::vector<FlagSpec> specs = Specs(&flags);
  std::set<std::string> seen;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!absl::StartsWith(argument, "--")) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", argument, "\" is no flag; see --help"));
    }
    const size_t equals = argument.find('=');
    const bool has_value = equals != std::string::npos;
    std::string name = argument.substr(2, has_value ? equals - 2 : equals);
    std::string value = has_value ? argument.substr(equals + 1) : "true";
    const FlagSpec* spec = Find(specs, name);
    if (spec == nullptr && !has_value && absl::StartsWith(name, "no-")) {
      spec = Find(specs, absl::string_view(name).substr(3));
      if (spec != nullptr && !spec->value.empty()) spec = nullptr;
      value = "false";
    }
    if (spec == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", name, " is unknown; see --help"));
    }
    if (!spec->value.empty() && !has_value) {
      if (++i == arguments.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--", name, " needs a value: ", spec->value));
      }
      value = arguments[i];
    }
    if (!seen.insert(spec->name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", spec->name, " is given twice"));
    }
    const absl::Status set = spec->set(value);
    if (!set.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", spec->name, " is ", set.message()));
    }
  }
  if (flags.catalog.empty() && !flags.help && !flags.version) {
    return absl::InvalidArgumentError("--catalog is missing; see --help");
  }
  if (const absl::Status secure = CheckSecurity(flags); !secure.ok()) {
    return secure;
  }
  return flags;
}

std::string FlagsHelp() {
  Flags flags;
  std::string text =
      "cupola_server: features of language models, over gRPC\n\n"
      "  cupola_server --catalog FILE [--listen HOST:PORT] [--cache_dir "
      "DIR]\n\n";
  for (const FlagSpec& spec : Specs(&flags)) {
    const std::string usage = absl::StrCat(
        "  --", spec.name, spec.value.empty() ? "" : " ", spec.value);
    absl::StrAppend(&text, usage, "\n      ", spec.help, "\n");
  }
  absl::StrAppend(
      &text,
      "\nSizes take K, M, G and T. Switches: --name, --no-name.\n"
      "SIGTERM and SIGINT drain; a second one ends at once. SIGHUP reads "
      "the catalog again.\n");
  return text;
}

}  // namespace cupola
