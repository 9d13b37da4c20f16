#ifndef CUPOLA_SERVER_SERVICE_REQUEST_SCOPE_H_
#define CUPOLA_SERVER_SERVICE_REQUEST_SCOPE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "server/engine/actor.h"
#include "server/engine/requests.h"
#include "server/service/access.h"
#include "server/service/call_gate.h"
#include "server/service/metrics.h"

namespace cupola::service {

// A request without a deadline gets this one.
inline constexpr absl::Duration kDefaultDeadline = absl::Minutes(10);

// What a request's log line tells besides its method, code and times. Names are
// logged cut to 128 bytes; prompts are only counted.
struct RequestNotes {
  std::string model, dictionary;
  int64_t prompts = 0, tokens = 0;
  bool computed =
      false;  // the engine has answered; the next two mean something
  bool from_cache = false;
  engine::StageSeconds seconds;
};

// One request's life on the transport's side: when it came, until when it may
// run, whether its client has gone, and, at its end, its metrics and its one
// log line. Created when the call arrives, ended once. The call that owns it is
// called from one thread at a time, except Cancel, which any thread may call.
class RequestScope {
 public:
  // `method` is a literal, and a name that RequiredRole knows; the others
  // outlive this. Without `access` everybody may everything.
  RequestScope(const char* method, grpc::CallbackServerContext* call,
               CallGate* gate, Metrics* metrics, Access* access = nullptr);
  ~RequestScope();

  // Not OK: the gate is shut, or the caller may not ask this (now), and the
  // call ends with this.
  const absl::Status& admitted() const { return admitted_; }

  const engine::RequestContext& context() const { return context_; }
  RequestNotes& notes() { return notes_; }
  // Who asks for changes, once admitted.
  const engine::Actor& actor() const { return actor_; }
  // As the request's message says.
  void SetDryRun(bool dry_run) { context_.dry_run = dry_run; }
  double SecondsSinceArrival() const;

  // The client has gone (or its deadline has passed): the engine drops the
  // work.
  void Cancel() { context_.cancelled->store(true); }
  // Not OK: nobody waits for the answer any more, or the server ends.
  absl::Status StillWanted() const;

  // Bytes of a message that came or goes, for the client's quota.
  void CountBytes(size_t bytes);

  // Marks the start of encoding the answer: what follows is serialize time.
  void AnswerReady();

  // Ends the request: counts it, logs it, and returns the status to finish the
  // call with. Call it just before the call's Finish.
  grpc::Status End(const absl::Status& status);

 private:
  // Who asks, and whether they may.
  absl::Status Admit();
  void LeaveQuota();

  const char* const method_;
  grpc::CallbackServerContext* const call_;
  CallGate* const gate_;
  Metrics* const metrics_;
  Access* const access_;
  engine::RequestContext context_;
  RequestNotes notes_;
  engine::Actor actor_{"", false};
  absl::Status admitted_;
  std::string account_;   // whose quota it counts to
  std::string trace_id_;  // empty: the client has sent none
  bool entered_ = false;  // the gate
  bool counted_ = false;  // among the client's requests
  absl::Time answer_ready_ = absl::InfinitePast();
};

// Metadata of calls that come from this very process, over its in-process
// channel: the address that asked it over HTTP. In other calls it means
// nothing.
inline constexpr char kForwardedAddress[] = "cupola-forwarded-address";

// The trace id (32 hexadecimal digits) of a W3C `traceparent` header; empty
// when `header` is not one.
std::string TraceId(absl::string_view header);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_REQUEST_SCOPE_H_
