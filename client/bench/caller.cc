#include "client/bench/caller.h"

#include <atomic>
#include <fstream>
#include <iterator>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/cpp/routing_metadata.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "cupola/v1/catalog.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/client_callback.h"

namespace cupola::bench {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;
constexpr absl::Duration kConnectTimeout = absl::Seconds(10);

using AsyncAnalysis = v1::Analysis::StubInterface::async_interface;

using SharedContext = std::shared_ptr<grpc::ClientContext>;

// The calls in flight, to end them.
class InFlight {
 public:
  void Add(const SharedContext& context) {
    absl::MutexLock lock(&mu_);
    contexts_.insert(context);
  }
  void Remove(const SharedContext& context) {
    absl::MutexLock lock(&mu_);
    contexts_.erase(context);
  }
  // Without the lock: a call that ends may come back to Remove on this thread.
  void CancelAll() {
    std::unordered_set<SharedContext> contexts;
    {
      absl::MutexLock lock(&mu_);
      contexts = contexts_;
    }
    for (const SharedContext& context : contexts) context->TryCancel();
  }

 private:
  absl::Mutex mu_;
  std::unordered_set<SharedContext> contexts_ ABSL_GUARDED_BY(mu_);
};

// One streamed call, from its start to its end; owns itself.
template <typename Request, typename Response>
class StreamCall final : public grpc::ClientReadReactor<Response> {
 public:
  using Method = void (AsyncAnalysis::*)(grpc::ClientContext*, const Request*,
                                         grpc::ClientReadReactor<Response>*);

  StreamCall(Request request, InFlight* in_flight,
             std::function<void(Outcome)> done)
      : request_(std::move(request)),
        in_flight_(in_flight),
        done_(std::move(done)) {
    in_flight_->Add(context_);
  }

  grpc::ClientContext& context() { return *context_; }
  const Request& request() const { return request_; }

  void Begin(AsyncAnalysis* stub, Method method) {
    (stub->*method)(context_.get(), &request_, this);
    this->StartRead(&message_);
    this->StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    outcome_.bytes += static_cast<int64_t>(message_.ByteSizeLong());
    if (message_.has_header()) {
      const v1::Provenance& provenance = message_.header().provenance();
      outcome_.from_cache = provenance.from_cache();
      outcome_.queue_seconds = provenance.seconds().queue();
      outcome_.compute_seconds = provenance.seconds().compute();
    }
    this->StartRead(&message_);
  }

  void OnDone(const grpc::Status& status) override {
    in_flight_->Remove(context_);
    outcome_.code = static_cast<absl::StatusCode>(status.error_code());
    const auto& trailers = context_->GetServerTrailingMetadata();
    int64_t milliseconds = 0;
    if (const auto delay = trailers.find("grpc-retry-pushback-ms");
        delay != trailers.end() &&
        absl::SimpleAtoi(
            absl::string_view(delay->second.data(), delay->second.size()),
            &milliseconds) &&
        milliseconds >= 0) {
      outcome_.retry_delay = absl::Milliseconds(milliseconds);
    }
    const auto done = std::move(done_);
    const Outcome outcome = outcome_;
    delete this;
    done(outcome);
  }

 private:
  const Request request_;
  InFlight* const in_flight_;
  std::function<void(Outcome)> done_;
  const SharedContext context_ = std::make_shared<grpc::ClientContext>();
  Response message_;
  Outcome outcome_;
};

v1::Prompts PromptsOf(const Question& question) {
  v1::Prompts prompts;
  v1::TokenIds* tokens = prompts.add_prompts()->mutable_tokens();
  tokens->mutable_ids()->Assign(question.tokens.begin(), question.tokens.end());
  return prompts;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(
    const std::string& tls_ca_file) {
  if (tls_ca_file.empty()) return grpc::InsecureChannelCredentials();
  std::ifstream file(tls_ca_file, std::ios::binary);
  grpc::SslCredentialsOptions options;
  options.pem_root_certs.assign(std::istreambuf_iterator<char>(file), {});
  if (!file || options.pem_root_certs.empty()) {
    return absl::NotFoundError(absl::StrCat("cannot read ", tls_ca_file));
  }
  return grpc::SslCredentials(options);
}

}  // namespace

class Caller::Impl {
 public:
  explicit Impl(CallerOptions options) : options_(std::move(options)) {}

  absl::Status Connect() {
    auto credentials = Credentials(options_.tls_ca_file);
    if (!credentials.ok()) return credentials.status();
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    // Channels of the same address would share one connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    for (int64_t i = 0; i < options_.connections; ++i) {
      channels_.push_back(
          grpc::CreateCustomChannel(options_.address, *credentials, arguments));
      channels_.back()->GetState(/*try_to_connect=*/true);
    }
    const auto limit = absl::ToChronoTime(absl::Now() + kConnectTimeout);
    for (const auto& channel : channels_) {
      if (!channel->WaitForConnected(limit)) {
        return absl::UnavailableError(
            absl::StrCat("no server answers at ", options_.address));
      }
      stubs_.push_back(v1::Analysis::NewStub(channel));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Subject> Find(const std::string& dictionary) {
    grpc::ClientContext context;
    Prepare(kConnectTimeout, &context);
    v1::ListResponse catalog;
    const grpc::Status status =
        v1::Catalog::NewStub(channels_.front())
            ->List(&context, v1::ListRequest(), &catalog);
    if (!status.ok()) {
      return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                          status.error_message());
    }
    for (const v1::DictionaryInfo& entry : catalog.dictionaries()) {
      const std::string& name = entry.name();
      const bool chosen = dictionary.empty() || dictionary == name ||
                          dictionary == name + ":in" ||
                          dictionary == name + ":out";
      if (!chosen) continue;
      for (const v1::ModelInfo& model : catalog.models()) {
        if (model.name() != entry.model()) continue;
        return Subject{model.name(), dictionary.empty() ? name : dictionary,
                       model.d_vocab(), model.n_ctx()};
      }
    }
    return absl::NotFoundError(
        dictionary.empty() ? "the server has no dictionary"
                           : absl::StrCat("the server has no dictionary \"",
                                          dictionary, "\""));
  }

  void Send(const Subject& subject, const Question& question,
            std::function<void(Outcome)> done) {
    switch (question.kind) {
      case Kind::kFeatures: {
        v1::FeaturesRequest request;
        request.set_dictionary(subject.dictionary);
        *request.mutable_prompts() = PromptsOf(question);
        Begin<v1::FeaturesRequest, v1::FeaturesResponse>(
            std::move(request), &AsyncAnalysis::GetFeatures, std::move(done));
        return;
      }
      case Kind::kAblate: {
        v1::AblateRequest request;
        request.set_dictionary(subject.dictionary);
        *request.mutable_prompts() = PromptsOf(question);
        Begin<v1::AblateRequest, v1::AblateResponse>(
            std::move(request), &AsyncAnalysis::Ablate, std::move(done));
        return;
      }
      case Kind::kRun: {
        v1::RunRequest request;
        request.set_model(subject.model);
        *request.mutable_prompts() = PromptsOf(question);
        request.set_output(true);
        Begin<v1::RunRequest, v1::RunResponse>(
            std::move(request), &AsyncAnalysis::Run, std::move(done));
        return;
      }
    }
  }

  void CancelAll() { in_flight_.CancelAll(); }

 private:
  void Prepare(absl::Duration deadline, grpc::ClientContext* context) const {
    context->set_deadline(absl::ToChronoTime(absl::Now() + deadline));
    if (!options_.token.empty()) {
      context->AddMetadata("authorization",
                           absl::StrCat("Bearer ", options_.token));
    }
  }

  template <typename Request, typename Response>
  void Begin(Request request,
             typename StreamCall<Request, Response>::Method method,
             std::function<void(Outcome)> done) {
    auto* call = new StreamCall<Request, Response>(
        std::move(request), &in_flight_, std::move(done));
    Prepare(options_.deadline, &call->context());
    AddRoutingMetadata(call->request(), &call->context());
    v1::Analysis::Stub& stub = *stubs_[next_stub_++ % stubs_.size()];
    call->Begin(stub.async(), method);
  }

  const CallerOptions options_;
  InFlight in_flight_;
  std::atomic<uint64_t> next_stub_{0};
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<v1::Analysis::Stub>> stubs_;
};

Caller::Caller(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Caller::~Caller() = default;

absl::StatusOr<std::unique_ptr<Caller>> Caller::Connect(
    const CallerOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  if (absl::Status status = impl->Connect(); !status.ok()) return status;
  return std::unique_ptr<Caller>(new Caller(std::move(impl)));
}

absl::StatusOr<Subject> Caller::Find(const std::string& dictionary) {
  return impl_->Find(dictionary);
}

void Caller::Send(const Subject& subject, const Question& question,
                  std::function<void(Outcome)> done) {
  impl_->Send(subject, question, std::move(done));
}

void Caller::CancelAll() { impl_->CancelAll(); }

}  // namespace cupola::bench
