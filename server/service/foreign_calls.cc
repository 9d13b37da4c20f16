#include "server/service/foreign_calls.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "grpc/grpc.h"
#include "grpcpp/server_context.h"
#include "server/service/status.h"

namespace cupola::service {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

class Guard final : public grpc::experimental::Interceptor {
 public:
  Guard(Access* access, ServerRpcInfo* info) : access_(access), info_(info) {}

  void Intercept(InterceptorBatchMethods* methods) override {
    const auto at = [methods](InterceptionHookPoints point) {
      return methods->QueryInterceptionHookPoint(point);
    };
    if (at(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      const auto* metadata = methods->GetRecvInitialMetadata();
      absl::string_view authorization;
      if (metadata->count("authorization") == 1) {
        const grpc::string_ref value = metadata->find("authorization")->second;
        authorization = absl::string_view(value.data(), value.size());
      }
      const std::string peer = info_->server_context()->peer();
      outcome_ = access_->Identify(authorization, AddressOfPeer(peer)).status();
      if (!outcome_.ok()) End();
    }
    if (!outcome_.ok() && at(InterceptionHookPoints::POST_RECV_MESSAGE)) {
      auto* message =
          static_cast<google::protobuf::Message*>(methods->GetRecvMessage());
      if (message != nullptr) message->Clear();
    }
    if (!outcome_.ok() && at(InterceptionHookPoints::PRE_SEND_STATUS)) {
      methods->ModifySendStatus(ToGrpcStatus(outcome_, nullptr));
    }
    methods->Proceed();
  }

 private:
  // Ends the call, whose handler may wait for a message that never comes. What
  // ServerContext offers for this has a code of its own, CANCELLED.
  void End() {
    grpc_call_cancel_with_status(info_->server_context()->c_call(),
                                 static_cast<grpc_status_code>(outcome_.code()),
                                 std::string(outcome_.message()).c_str(),
                                 nullptr);
  }

  Access* const access_;
  ServerRpcInfo* const info_;
  // Until the metadata has come nobody is known.
  absl::Status outcome_ = absl::UnauthenticatedError("no token");
};

class Factory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(Access* access) : access_(access) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      ServerRpcInfo* info) override {
    const absl::string_view method = info->method();
    const bool own = absl::StartsWith(method, "/cupola.v1.") ||
                     absl::StartsWith(method, "/grpc.health.v1.");
    return own ? nullptr : new Guard(access_, info);
  }

 private:
  Access* const access_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
GuardForeignCalls(Access* access) {
  return std::make_unique<Factory>(access);
}

}  // namespace cupola::service
