#include "server/service/request_scope.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "server/service/log.h"
#include "server/service/status.h"

namespace cupola::service {
namespace {

constexpr size_t kMaxLoggedName = 128;
constexpr size_t kMaxTraceparent = 256;
// What gRPC calls the peer of a call that came over no transport with
// addresses: one over the in-process channel.
constexpr absl::string_view kInProcess = "unknown";

bool IsLowerHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
  });
}

absl::Time Deadline(const grpc::CallbackServerContext& call,
                    absl::Time arrival) {
  const auto deadline = call.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return arrival + kDefaultDeadline;
  }
  return absl::FromChrono(deadline);
}

// The value of a metadata key; empty where it is missing or comes twice.
absl::string_view MetadataOf(const grpc::CallbackServerContext& call,
                             const char* key) {
  const auto& metadata = call.client_metadata();
  if (metadata.count(key) != 1) return "";
  const grpc::string_ref value = metadata.find(key)->second;
  return absl::string_view(value.data(), value.size());
}

// The trace id of a call whose client sends one; the header goes back to it
// with the answer's first bytes.
std::string EchoTrace(grpc::CallbackServerContext* call) {
  const std::string header(MetadataOf(*call, "traceparent"));
  std::string id = TraceId(header);
  if (!id.empty()) call->AddInitialMetadata("traceparent", header);
  return id;
}

std::string AddressOf(const grpc::CallbackServerContext& call) {
  const std::string peer = call.peer();
  if (peer == kInProcess) {
    return AddressOfText(MetadataOf(call, kForwardedAddress));
  }
  return AddressOfPeer(peer);
}

}  // namespace

RequestScope::RequestScope(const char* method,
                           grpc::CallbackServerContext* call, CallGate* gate,
                           Metrics* metrics, Access* access)
    : method_(method),
      call_(call),
      gate_(gate),
      metrics_(metrics),
      access_(access) {
  context_.arrival = absl::Now();
  context_.held = std::make_shared<engine::HeldUntilSent>();
  context_.deadline = Deadline(*call, context_.arrival);
  metrics_->OnRequestStart();
  trace_id_ = EchoTrace(call_);
  entered_ = gate_->Enter();
  admitted_ = entered_ ? Admit() : ShuttingDown();
}

RequestScope::~RequestScope() {
  LeaveQuota();
  if (entered_) gate_->Leave();
}

absl::Status RequestScope::Admit() {
  context_.client = AddressOf(*call_);
  actor_.admin = access_ == nullptr;
  if (access_ == nullptr) return absl::OkStatus();
  const absl::StatusOr<Caller> caller = access_->Authorize(
      method_, MetadataOf(*call_, "authorization"), context_.client);
  if (!caller.ok()) return caller.status();
  context_.client = caller->client;
  account_ = caller->account;
  actor_ = {caller->named ? caller->client : "", caller->role == Role::kAdmin};
  const absl::Status entered =
      access_->quotas().Enter(account_, caller->limits, context_.arrival);
  counted_ = entered.ok() && caller->limits.any();
  return entered;
}

void RequestScope::LeaveQuota() {
  if (counted_) access_->quotas().Leave(account_);
  counted_ = false;
}

void RequestScope::CountBytes(size_t bytes) {
  if (counted_) {
    access_->quotas().CountBytes(account_, static_cast<int64_t>(bytes));
  }
}

absl::Status RequestScope::StillWanted() const {
  if (gate_->clearing()) return ShuttingDown();
  if (context_.cancelled->load()) {
    return absl::CancelledError("the client has gone");
  }
  return absl::OkStatus();
}

double RequestScope::SecondsSinceArrival() const {
  return absl::ToDoubleSeconds(absl::Now() - context_.arrival);
}

void RequestScope::AnswerReady() {
  answer_ready_ = absl::Now();
  notes_.computed = true;
}

grpc::Status RequestScope::End(const absl::Status& status) {
  // Before the client knows of the end: its next request is not one too many.
  LeaveQuota();
  absl::Status outcome = status;
  const absl::Time now = absl::Now();
  // gRPC reports its own end, and a passed deadline, as cancellations.
  if (absl::IsCancelled(outcome) && gate_->clearing()) {
    outcome = ShuttingDown();
  }
  // The client counts from earlier on, and its rounded timeout comes to us
  // late.
  const absl::Duration slack =
      absl::Milliseconds(20) + (context_.deadline - context_.arrival) / 100;
  if (absl::IsCancelled(outcome) && now >= context_.deadline - slack) {
    outcome = absl::DeadlineExceededError("the request's deadline has passed");
  }
  grpc::Status result = ToGrpcStatus(outcome, call_);

  RequestTimes times;
  times.total = absl::ToDoubleSeconds(now - context_.arrival);
  times.lookup = notes_.seconds.lookup;
  times.queue = notes_.seconds.queue;
  times.compute = notes_.seconds.compute;
  if (notes_.computed) {
    times.serialize = absl::ToDoubleSeconds(now - answer_ready_);
  }
  const char* code = CodeName(result.error_code());
  metrics_->OnRequestEnd(method_, notes_.model, code, notes_.computed, times,
                         notes_.tokens);

  nlohmann::json line = {
      {"method", method_}, {"code", code}, {"total_seconds", times.total}};
  const auto add_name = [&line](const char* key, const std::string& name) {
    if (!name.empty()) line[key] = name.substr(0, kMaxLoggedName);
  };
  add_name("model", notes_.model);
  add_name("dictionary", notes_.dictionary);
  add_name("client", context_.client);
  add_name("trace_id", trace_id_);
  if (notes_.prompts > 0) line["prompts"] = notes_.prompts;
  if (notes_.computed) {
    line["tokens"] = notes_.tokens;
    line["from_cache"] = notes_.from_cache;
    line["lookup_seconds"] = times.lookup;
    line["queue_seconds"] = times.queue;
    line["compute_seconds"] = times.compute;
    line["serialize_seconds"] = times.serialize;
  }
  // Only a bug's text is logged: other messages may quote what a client sent.
  if (absl::IsInternal(outcome) || absl::IsUnknown(outcome)) {
    line["message"] = result.error_message();
    LogError("request", std::move(line));
  } else {
    LogInfo("request", std::move(line));
  }
  return result;
}

std::string TraceId(absl::string_view header) {
  // version "-" trace id "-" parent id "-" flags, lower-case hexadecimal
  // (W3C Trace Context, section 3.2). Later versions may add parts.
  if (header.size() > kMaxTraceparent) return "";
  const std::vector<absl::string_view> parts = absl::StrSplit(header, '-');
  const auto is_hex = [&](size_t part, size_t size) {
    return parts[part].size() == size && IsLowerHex(parts[part]);
  };
  const auto is_zero = [&](size_t part) {
    return parts[part].find_first_not_of('0') == absl::string_view::npos;
  };
  if (parts.size() < 4 || !is_hex(0, 2) || !is_hex(1, 32) || !is_hex(2, 16) ||
      !is_hex(3, 2) || is_zero(1) || is_zero(2) || parts[0] == "ff" ||
      (parts[0] == "00" && parts.size() > 4)) {
    return "";
  }
  return std::string(parts[1]);
}

}  // namespace cupola::service
