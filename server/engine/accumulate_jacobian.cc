#include "server/engine/accumulate_jacobian.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/ask_jacobian.h"
#include "server/engine/job_prompts.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::JacobianDivisor;
using analysis::JacobianStatistic;
using analysis::JacobianTotals;
using analysis::JacobianTotalsOptions;
using model::Json;

// Of what a specification says; raise it when that changes.
constexpr int kSpecificationVersion = 1;
// Tokens of a chunk: of about a tenth of a second, against active latents and
// against all of them.
constexpr ChunkRule kChunks{512, 1 << 13, 512, 1};
constexpr ChunkRule kWideChunks{32, 256, 512, 1};
constexpr int64_t kMaxBins = 1 << 20;
constexpr double kMaxTotalsBytes = 16.0 * (int64_t{1} << 30);

template <typename T>
const T* ValuesOf(const Array& array) {
  return reinterpret_cast<const T*>(array.bytes.data());
}

class Accumulation : public AccumulatingWork<JacobianTotals> {
 public:
  Accumulation(JacobianRequest request, const JacobianTotalsOptions& options,
               TokenJob job, const JobHost& host)
      : AccumulatingWork(std::move(job), host,
                         [options] { return JacobianTotals(options); }),
        request_(std::move(request)),
        ask_(host.jacobian) {}

  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    RETURN_IF_ERROR(MakeState());
    JacobianRequest request = request_;
    request.prompts.emplace();
    RETURN_IF_ERROR(job_.rows.Ask(plan_->pieces(chunk), &*request.prompts,
                                  &request.positions));
    ASSIGN_OR_RETURN(const JacobianAnswer answer, ask_(request, context));
    RETURN_IF_ERROR(job_.CheckSame(answer.provenance));
    const auto& dictionaries = job_.provenance.dictionaries;
    if (dictionaries.size() > 1 &&
        answer.output_digest != dictionaries[1].second) {
      return absl::FailedPreconditionError(
          absl::StrCat("the weights of ", dictionaries[1].first,
                       " are others than when the job began"));
    }
    Add(answer);
    return absl::OkStatus();
  }

 private:
  void Add(const JacobianAnswer& answer) {
    const int64_t n = answer.out_latents.shape[0];
    const int64_t k_out = answer.out_latents.shape[1];
    const int64_t k_in = answer.in_latents.shape[1];
    const auto* outs = ValuesOf<int32_t>(answer.out_latents);
    const auto* ins = ValuesOf<int32_t>(answer.in_latents);
    const auto* values = ValuesOf<float>(answer.values);
    const auto* indptr = ValuesOf<int64_t>(answer.indptr);
    const auto* indices = ValuesOf<int32_t>(answer.indices);
    const bool sparse = answer.indptr.shape[0] > 0;
    std::vector<JacobianTotals::TokenRow> rows;
    for (int64_t row = 0; row < n * k_out; ++row) {
      if (outs[row] < 0) continue;
      if (sparse) {
        rows.push_back({outs[row], indices + indptr[row], values + indptr[row],
                        indptr[row + 1] - indptr[row], /*ascending=*/true});
      } else {
        rows.push_back({outs[row], ins + row / k_out * k_in,
                        values + row * k_in, k_in, /*ascending=*/false});
      }
    }
    totals().Add(n, rows);
  }

  const JacobianRequest request_;  // without prompts
  const decltype(JobHost::jacobian) ask_;
};

absl::Status CheckRequest(const AccumulateJacobianRequest& request) {
  const analysis::JacobianOptions& options = request.jacobian.options;
  if (request.jacobian.frozen ||
      request.jacobian.source_rule != analysis::SourceRule::kSame) {
    return absl::InvalidArgumentError(
        "jacobian: Jacobians between positions, or with attention held, are "
        "not accumulated");
  }
  if (options.second_order || options.mlp_output || options.gradients) {
    return absl::InvalidArgumentError(
        "jacobian: second_order, mlp_output and gradients are not accumulated");
  }
  if (request.bins < 1 || request.bins > kMaxBins) {
    return absl::InvalidArgumentError(absl::StrCat(
        "histogram_bins is ", request.bins, "; accepted: 1 to ", kMaxBins));
  }
  if (!(request.bins_end > 0) || !std::isfinite(request.bins_end)) {
    return absl::InvalidArgumentError(
        absl::StrCat("histogram_end is ", request.bins_end,
                     "; accepted: a finite number above 0"));
  }
  return absl::OkStatus();
}

const ChunkRule& ChunksOf(const JacobianRequest& request) {
  return request.options.all_inputs ? kWideChunks : kChunks;
}

int64_t OutputLatents(const JacobianRequest& request, const Sources& sources) {
  const auto& source =
      request.output_dictionary.empty()
          ? sources.dictionary
          : sources.others.at(request.output_dictionary).dictionary;
  return source->manifest().d_sae;
}

absl::Status CheckSize(const JacobianTotalsOptions& totals) {
  const double bytes =
      JacobianTotals::Bytes(totals, static_cast<double>(totals.d_out));
  if (bytes > kMaxTotalsBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the totals of ", totals.d_out, " x ", totals.d_in,
                     " pairs of latents may take ", bytes,
                     " bytes; accepted: ", kMaxTotalsBytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<JobSpecification> Specify(
    const AccumulateJacobianRequest& request, const JobHost& host,
    const RequestContext& context) {
  RETURN_IF_ERROR(CheckRequest(request));
  const JacobianRequest& jacobian = request.jacobian;
  ASSIGN_OR_RETURN(const int64_t chunk_tokens,
                   ChunkTokens(request.chunk_tokens, ChunksOf(jacobian)));
  ASSIGN_OR_RETURN(
      const Sources sources,
      host.open(jacobian.dictionary, OtherDictionaries(jacobian), context));
  const analysis::JacobianOptions& options = jacobian.options;
  const auto ask = [&](const Prompts& prompts, const Positions& positions) {
    JacobianRequest some = jacobian;
    // The answers of a chunk are smaller than those of all.
    some.options.all_inputs = false;
    some.options.block = false;
    some.prompts = prompts;
    some.positions = positions;
    return AskJacobian(some, sources, host.limits);
  };
  ASSIGN_OR_RETURN(
      const ResolvedRows resolved,
      ResolveRows(jacobian.prompts, request.rows, jacobian.positions, sources,
                  host, context, ask));
  const JacobianTotalsOptions totals{
      OutputLatents(jacobian, sources), sources.dictionary->manifest().d_sae,
      request.float64, request.bins, request.bins_end};
  RETURN_IF_ERROR(CheckSize(totals));
  const Json json = {
      {"dictionary", jacobian.dictionary},
      {"output_dictionary", jacobian.output_dictionary},
      {"folded", resolved.processing == model::Processing::kFolded},
      {"mlp_input", static_cast<int>(options.mlp_input)},
      {"mask", static_cast<int>(options.mask)},
      {"all_inputs", options.all_inputs},
      {"min_abs", options.min_abs},
      {"top", options.top},
      {"d_out", totals.d_out},
      {"d_in", totals.d_in},
      {"float64", request.float64},
      {"bins", request.bins},
      {"bins_end", request.bins_end}};
  const std::string title = jacobian.output_dictionary.empty()
                                ? jacobian.dictionary
                                : absl::StrCat(jacobian.dictionary, " -> ",
                                               jacobian.output_dictionary);
  return JobSpecification{kAccumulateJacobian, title,
                          WriteSpecification(kSpecificationVersion, json,
                                             chunk_tokens, resolved.rows)};
}

absl::StatusOr<std::unique_ptr<JobWork>> MakeAccumulation(
    const std::string& specification, const JobHost& host,
    const RequestContext& context) {
  JacobianRequest request;
  JacobianTotalsOptions totals;
  const auto read = [&](const Json& json) {
    request.dictionary = json.at("dictionary");
    request.output_dictionary = json.at("output_dictionary");
    request.processing = json.at("folded").get<bool>()
                             ? model::Processing::kFolded
                             : model::Processing::kRaw;
    analysis::JacobianOptions& options = request.options;
    options.mlp_input =
        static_cast<analysis::MlpInput>(json.at("mlp_input").get<int>());
    options.mask =
        static_cast<analysis::LatentMask>(json.at("mask").get<int>());
    options.all_inputs = json.at("all_inputs");
    options.min_abs = json.at("min_abs");
    options.top = json.at("top");
    totals = {json.at("d_out"), json.at("d_in"), json.at("float64"),
              json.at("bins"), json.at("bins_end")};
  };
  ASSIGN_OR_RETURN(
      TokenJob job,
      ReadSpecification(specification, kSpecificationVersion, kChunks, read));
  // A text may have come from another machine.
  const analysis::JacobianOptions& options = request.options;
  const auto between = [](auto value, auto first, auto last) {
    return first <= value && value <= last;
  };
  if (!between(options.mlp_input, analysis::MlpInput::kOriginal,
               analysis::MlpInput::kReconstruction) ||
      !between(options.mask, analysis::LatentMask::kSlots,
               analysis::LatentMask::kPositive)) {
    return absl::DataLossError("the job's specification is damaged");
  }
  RETURN_IF_ERROR(
      CheckRequest({request, totals.float64, totals.bins, totals.bins_end,
                    job.rules.positions, std::nullopt}));
  RETURN_IF_ERROR(ChunkTokens(job.rules.positions, ChunksOf(request)).status());
  // The question of one token has the digests of all that is asked.
  ASSIGN_OR_RETURN(
      const Sources sources,
      host.open(request.dictionary, OtherDictionaries(request), context));
  if (OutputLatents(request, sources) != totals.d_out ||
      sources.dictionary->manifest().d_sae != totals.d_in) {
    return absl::FailedPreconditionError(
        "the job's dictionaries have other sizes now");
  }
  RETURN_IF_ERROR(CheckSize(totals));
  JacobianRequest one = request;
  one.prompts = OneToken();
  ASSIGN_OR_RETURN(const Question question,
                   AskJacobian(one, sources, host.limits));
  Identify(kAccumulateJacobian, specification, {question}, &job);
  if (!request.output_dictionary.empty()) {
    job.provenance.dictionaries.emplace_back(request.output_dictionary,
                                             question.output_digest);
  }
  return std::make_unique<Accumulation>(std::move(request), totals,
                                        std::move(job), host);
}

const analysis::JacobianTotals& TotalsOf(const JobWork& work) {
  return static_cast<const Accumulation&>(work).totals();
}

}  // namespace cupola::engine
