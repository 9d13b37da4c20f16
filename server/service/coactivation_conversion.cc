#include "server/service/coactivation_conversion.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/corpus_request.h"
#include "server/service/jobs_conversion.h"

namespace cupola::service {
namespace {

using analysis::PairMeasure;
using Query = v1::GetCoactivationRequest;

// The values are numbered alike.
static_assert(static_cast<int>(PairMeasure::kCount) == Query::COUNT &&
              static_cast<int>(PairMeasure::kProbability) ==
                  Query::PROBABILITY &&
              static_cast<int>(PairMeasure::kUpstreamCorrelation) ==
                  Query::UPSTREAM &&
              static_cast<int>(PairMeasure::kPhi) == Query::PHI &&
              static_cast<int>(PairMeasure::kPearson) == Query::PEARSON &&
              static_cast<int>(PairMeasure::kJaccard) == Query::JACCARD &&
              static_cast<int>(PairMeasure::kCosine) == Query::COSINE);

}  // namespace

absl::StatusOr<engine::CoactivationRequest> FromProto(
    v1::CoactivationRequest request) {
  engine::CoactivationRequest plain;
  RETURN_IF_ERROR(TakeCorpus(&request, &plain));
  if (request.has_sample()) plain.sample = request.sample();
  plain.products = !request.counts_alone();
  plain.chunk_tokens = request.chunk_tokens();
  return plain;
}

absl::StatusOr<engine::CoactivationQuery> FromProto(const Query& request) {
  engine::CoactivationQuery plain;
  if (!Query::Measure_IsValid(request.measure())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "measure is ", request.measure(), "; accepted: 0 (COUNT) to ",
        static_cast<int>(Query::Measure_MAX)));
  }
  if (request.measure() != Query::MEASURE_UNSPECIFIED) {
    plain.measure = static_cast<PairMeasure>(request.measure());
  }
  plain.job = request.job();
  plain.a.assign(request.a().begin(), request.a().end());
  plain.b.assign(request.b().begin(), request.b().end());
  plain.latents.assign(request.latents().begin(), request.latents().end());
  plain.top = request.top();
  plain.matrix = request.matrix();
  plain.first = request.first();
  if (request.min_count() != 0) plain.min_count = request.min_count();
  return plain;
}

StreamedAnswer<v1::GetCoactivationResponse> ToProto(
    engine::CoactivationAnswer answer, const engine::JobInfo& job) {
  StreamedAnswer<v1::GetCoactivationResponse> streamed;
  auto* header = streamed.first.mutable_header();
  header->set_tokens(answer.tokens);
  header->set_d_sae(answer.options.latents);
  header->set_sample(answer.options.sample);
  header->set_products(answer.options.sample == 0 && answer.options.products);
  header->set_next(answer.next);
  TensorCollector tensors;
  tensors.Add(std::move(answer.values), header->mutable_values());
  tensors.Add(std::move(answer.both), header->mutable_both());
  tensors.Add(std::move(answer.partner), header->mutable_partner());
  tensors.Add(std::move(answer.partner_value), header->mutable_partner_value());
  tensors.Add(std::move(answer.partner_both), header->mutable_partner_both());
  tensors.Add(std::move(answer.row), header->mutable_row());
  tensors.Add(std::move(answer.column), header->mutable_column());
  tensors.Add(std::move(answer.entry), header->mutable_entry());
  tensors.Add(std::move(answer.mirrored), header->mutable_mirrored());
  *header->mutable_job() = ToProto(job);
  streamed.pieces = tensors.Finish();
  return streamed;
}

}  // namespace cupola::service
