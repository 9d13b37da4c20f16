#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/engine_impl.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
void Engine::Impl::StartDatasets() {
  Datasets::Options options;
  const std::string state = StateDirectory();
  if (!state.empty()) options.directory = absl::StrCat(state, "/datasets");
  options.max_bytes = options_.dataset_bytes;
  options.keep = options_.dataset_keep;
  options.in_use = [this](const storage::Digest& dataset) {
    return jobs_ != nullptr && jobs_->Uses(dataset);
  };
  datasets_ = Datasets::Open(std::move(options));
}

template <typename Answer, typename Body>
void Engine::Impl::WithModelSlowly(const std::string& model,
                                   const RequestContext& context,
                                   Done<Answer> done, Body body) {
  Admit<Answer>(context, std::move(done), [=, this](Done<Answer> done) {
    OpenModel(model, context, [=, this](absl::StatusOr<Sources> sources) {
      if (!sources.ok()) return done(sources.status());
      slow_->Run([=, this, sources = *std::move(sources)] {
        if (absl::Status wanted = StillWanted(context); !wanted.ok()) {
          return done(wanted);
        }
        done(model::CatchTorch("working on a dataset",
                               [&] { return body(sources); }));
      });
    });
  });
}

Datasets& Engine::datasets() { return *impl_->datasets_; }

void Engine::TokenizeDataset(TokenizeDatasetRequest request,
                             RequestContext context, Done<TokenizedInfo> done) {
  Datasets* const datasets = impl_->datasets_.get();
  const std::string model = request.how.model;
  impl_->WithModelSlowly<TokenizedInfo>(
      model, context, std::move(done),
      [=, request = std::move(request)](const Sources& sources) {
        return datasets->Tokenize(request.dataset, request.how, *sources.model,
                                  context);
      });
}

void Engine::ReadDataset(ReadDatasetRequest request, RequestContext context,
                         Done<ReadDatasetAnswer> done) {
  Datasets* const datasets = impl_->datasets_.get();
  if (request.how.has_value()) {
    const std::string model = request.how->model;
    impl_->WithModelSlowly<ReadDatasetAnswer>(
        model, context, std::move(done),
        [=, request = std::move(request)](
            const Sources& sources) -> absl::StatusOr<ReadDatasetAnswer> {
          ASSIGN_OR_RETURN(const TokenizedInfo tokenized,
                           datasets->Tokenize(request.dataset, *request.how,
                                              *sources.model, context));
          ReadDatasetAnswer answer;
          answer.rows = tokenized.rows;
          ASSIGN_OR_RETURN(answer.documents,
                           datasets->ReadRows(tokenized.digest, request.first,
                                              request.count));
          return answer;
        });
    return;
  }
  impl_->Admit<ReadDatasetAnswer>(
      context, std::move(done),
      [=, request = std::move(request)](const Done<ReadDatasetAnswer>& done) {
        const auto read = [&]() -> absl::StatusOr<ReadDatasetAnswer> {
          ReadDatasetAnswer answer;
          ASSIGN_OR_RETURN(const DatasetInfo info,
                           datasets->Get(request.dataset));
          answer.rows = info.rows;
          ASSIGN_OR_RETURN(
              answer.documents,
              datasets->Read(request.dataset, request.first, request.count));
          return answer;
        };
        done(read());
      });
}

}  // namespace cupola::engine
