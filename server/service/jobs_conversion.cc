#include "server/service/jobs_conversion.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/datasets_conversion.h"
#include "server/service/jacobian_conversion.h"

namespace cupola::service {
namespace {

constexpr int64_t kMaxKeepSeconds = int64_t{100} * 365 * 86400;

}  // namespace

v1::JobProvenance ToProto(const engine::JobProvenance& known) {
  const auto bytes = [](const storage::Digest& digest) {
    return std::string(digest.begin(), digest.end());
  };
  v1::JobProvenance told;
  told.set_model(known.model);
  told.set_model_digest(bytes(known.model_digest));
  for (const auto& [name, digest] : known.dictionaries) {
    v1::JobProvenance::Dictionary& dictionary = *told.add_dictionaries();
    dictionary.set_name(name);
    dictionary.set_digest(bytes(digest));
  }
  if (!known.dataset.empty()) {
    told.set_dataset(known.dataset);
    told.set_dataset_digest(bytes(known.dataset_digest));
    told.set_rows_digest(bytes(known.rows_digest));
  }
  told.set_parameters(known.parameters);
  if (known.store != storage::Digest{}) told.set_store(bytes(known.store));
  return told;
}

v1::Job ToProto(const engine::JobInfo& info) {
  v1::Job job;
  job.set_id(info.id);
  job.set_kind(info.kind);
  job.set_title(info.title);
  job.set_owner(info.owner);
  // Numbered alike.
  job.set_state(static_cast<v1::Job::State>(info.state));
  job.set_chunks_done(info.chunks_done);
  job.set_chunks(info.chunks);
  job.set_chunks_saved(info.chunks_saved);
  job.set_tokens_done(info.tokens_done);
  job.set_tokens(info.tokens);
  job.set_seconds(info.seconds);
  job.set_tokens_per_second(info.tokens_per_second);
  job.set_seconds_left(info.seconds_left);
  job.set_error(info.error);
  job.set_submitted_micros(absl::ToUnixMicros(info.submitted));
  job.set_name(info.name);
  job.mutable_shard()->set_index(info.shard.index);
  job.mutable_shard()->set_count(info.shard.count);
  job.set_first_chunk(info.first_chunk);
  job.set_resumable(info.resumable);
  if (info.expires < absl::InfiniteFuture()) {
    job.set_expires_micros(absl::ToUnixMicros(info.expires));
  }
  *job.mutable_provenance() = ToProto(info.provenance);
  return job;
}

absl::StatusOr<engine::JobOptions> FromProto(const v1::JobOptions& options) {
  const int64_t keep = options.keep_seconds();
  if (keep < 0 || keep > kMaxKeepSeconds) {
    return absl::InvalidArgumentError(absl::StrCat("options.keep_seconds is ",
                                                   keep, "; accepted: 0 to ",
                                                   kMaxKeepSeconds));
  }
  engine::JobOptions plain;
  plain.name = options.name();
  plain.request_id = options.request_id();
  plain.keep = absl::Seconds(keep);
  if (options.has_shard()) {
    plain.shard = {options.shard().index(), options.shard().count()};
  }
  return plain;
}

absl::StatusOr<engine::AccumulateJacobianRequest> FromProto(
    v1::AccumulateJacobianRequest request) {
  engine::AccumulateJacobianRequest plain;
  if (request.has_rows()) {
    ASSIGN_OR_RETURN(plain.rows, FromProto(request.rows()));
    v1::JacobianRequest& jacobian = *request.mutable_jacobian();
    if (jacobian.has_prompts() || jacobian.has_inputs()) {
      return absl::InvalidArgumentError(
          "rows is set beside jacobian.prompts or jacobian.inputs; accepted: "
          "one of them");
    }
    // A prompt stands in for the rows while the rest is read.
    jacobian.mutable_prompts()->add_prompts()->mutable_tokens()->add_ids(0);
  }
  ASSIGN_OR_RETURN(plain.jacobian,
                   FromProto(std::move(*request.mutable_jacobian())));
  if (plain.rows.has_value()) plain.jacobian.prompts.reset();
  plain.float64 = request.float64();
  if (request.histogram_bins() != 0) plain.bins = request.histogram_bins();
  if (request.histogram_end() != 0) plain.bins_end = request.histogram_end();
  plain.chunk_tokens = request.chunk_tokens();
  return plain;
}

absl::StatusOr<engine::JacobianTotalsRequest> FromProto(
    const v1::JacobianTotalsRequest& request) {
  engine::JacobianTotalsRequest plain;
  plain.job = request.job();
  if (!v1::JacobianTotalsRequest::Statistic_IsValid(request.statistic())) {
    return absl::InvalidArgumentError(
        absl::StrCat("statistic is ", static_cast<int>(request.statistic()),
                     "; accepted: MEAN, SUM, MAX, COUNT or unset"));
  }
  if (!v1::JacobianTotalsRequest::Divisor_IsValid(request.divisor())) {
    return absl::InvalidArgumentError(
        absl::StrCat("divisor is ", static_cast<int>(request.divisor()),
                     "; accepted: ALL_TOKENS, OUTPUT_ACTIVE or unset"));
  }
  // Numbered alike.
  if (request.statistic() != 0) {
    plain.statistic =
        static_cast<analysis::JacobianStatistic>(request.statistic());
  }
  if (request.divisor() != 0) {
    plain.divisor = static_cast<analysis::JacobianDivisor>(request.divisor());
  }
  plain.thresholds = {request.thresholds().begin(), request.thresholds().end()};
  plain.top = request.top();
  plain.rows = {request.rows().begin(), request.rows().end()};
  plain.columns = {request.columns().begin(), request.columns().end()};
  plain.active = request.active();
  plain.histogram = request.histogram();
  return plain;
}

v1::ShardHeader ToProto(const engine::ExportedShard& shard) {
  v1::ShardHeader header;
  header.set_kind(shard.specification.kind);
  header.set_title(shard.specification.title);
  header.set_specification(shard.specification.text);
  header.mutable_shard()->set_index(shard.shard.index);
  header.mutable_shard()->set_count(shard.shard.count);
  header.set_state_bytes(shard.bytes);
  header.set_tokens(shard.tokens);
  return header;
}

engine::ReceivedShard FromProto(const v1::ShardHeader& header) {
  engine::ReceivedShard shard;
  shard.specification =
      std::make_shared<const engine::JobSpecification>(engine::JobSpecification{
          header.kind(), header.title(), header.specification()});
  shard.shard = {header.shard().index(), header.shard().count()};
  shard.tokens = header.tokens();
  return shard;
}

StreamedAnswer<v1::JacobianTotalsResponse> ToProto(
    engine::JacobianTotalsAnswer answer, const engine::JobInfo& job) {
  StreamedAnswer<v1::JacobianTotalsResponse> streamed;
  auto* header = streamed.first.mutable_header();
  header->set_tokens(answer.tokens);
  header->set_d_out(answer.d_out);
  header->set_d_in(answer.d_in);
  header->set_float64(answer.float64);
  header->set_histogram_end(answer.bins_end);
  TensorCollector tensors;
  tensors.Add(std::move(answer.above), header->mutable_above());
  tensors.Add(std::move(answer.top_out), header->mutable_top_out());
  tensors.Add(std::move(answer.top_in), header->mutable_top_in());
  tensors.Add(std::move(answer.top_values), header->mutable_top_values());
  tensors.Add(std::move(answer.rows), header->mutable_rows());
  tensors.Add(std::move(answer.columns), header->mutable_columns());
  tensors.Add(std::move(answer.active), header->mutable_active());
  tensors.Add(std::move(answer.histogram), header->mutable_histogram());
  *header->mutable_job() = ToProto(job);
  streamed.pieces = tensors.Finish();
  return streamed;
}

}  // namespace cupola::service
