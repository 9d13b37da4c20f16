#include "server/engine/ask_jacobian.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"
#include "server/analysis/tensor_io.h"
#include "server/engine/ask_layers_jacobian.h"
#include "server/engine/begin_bridge.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::JacobianAnalysis;
using storage::DType;

// What the blocks of k_out by k_in latents take and hold.
void NoteCost(const JacobianRequest& request, const dictionary::Manifest& in,
              const dictionary::Manifest& out, const model::ModelConfig& config,
              Question& question) {
  const analysis::JacobianOptions& options = request.options;
  bool* const guessed = &question.answer_is_guessed;
  const double k_in = static_cast<double>(MostActive(in, guessed));
  const double k_out = static_cast<double>(MostActive(out, guessed));
  const double rows = static_cast<double>(RowCount(question));
  const double columns =
      options.all_inputs ? static_cast<double>(in.d_sae) : k_in;
  const double encodes =
      2.0 * static_cast<double>(in.d_in * in.d_sae + out.d_out * out.d_sae);
  question.work.passes = 1;
  question.work.flops_per_row =
      encodes + 2.0 * k_out * columns * static_cast<double>(config.d_mlp);
  double each = 8 * (k_in + k_out);
  if (options.second_order) each += 4 * k_out * k_in;
  if (options.all_inputs) {
    *guessed = *guessed || options.min_abs > 0;
    const double most = options.top > 0       ? options.top
                        : options.min_abs > 0 ? static_cast<double>(kManyActive)
                                              : columns;
    each += 8 * k_out * std::min(most, columns);
  } else if (options.block) {
    each += 4 * k_out * k_in;
  }
  question.answer_bytes = rows * each;
}

absl::Status CheckOptions(const analysis::JacobianOptions& options,
                          const Question& question, const Limits& limits,
                          int64_t k_in, int64_t k_out) {
  const double rows = static_cast<double>(RowCount(question));
  double block = 4 * rows * k_out * k_in;
  double bytes = options.second_order ? block : 0;
  if (!options.all_inputs) {
    bytes += options.block ? block : 0;
  } else if (options.min_abs == 0) {
    const int64_t most = options.top > 0 ? std::min(options.top, question.d_sae)
                                         : question.d_sae;
    bytes += 8 * rows * k_out * most;
  }
  if (bytes <= static_cast<double>(limits.max_answer_bytes)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "the Jacobians of ", RowCount(question), " tokens would hold ", bytes,
      " bytes; the server sends at most ", limits.max_answer_bytes,
      options.all_inputs
          ? ": set all_inputs.min_abs or all_inputs.top, or ask for fewer "
            "positions"
          : ": ask for fewer prompts or positions"));
}

// What is known of a token's active latents before they are.
int64_t AtLeastActive(const dictionary::Manifest& manifest) {
  return manifest.architecture == dictionary::Architecture::kTopK ? manifest.k
                                                                  : 0;
}

// The shape of arrays [n, ...] one below the other, their other axes padded to
// the longest.
std::vector<int64_t> PaddedShape(const Records& records, size_t which) {
  std::vector<int64_t> shape = (*records.front())[which].shape;
  shape[0] = 0;
  for (const auto& record : records) {
    const Array& mine = (*record)[which];
    shape[0] += mine.shape[0];
    for (size_t axis = 1; axis < shape.size(); ++axis) {
      shape[axis] = std::max(shape[axis], mine.shape[axis]);
    }
  }
  return shape;
}

// Arrays one below the other in their padded shape.
Array ConcatenatePadded(const Records& records, size_t which, double fill) {
  const std::vector<int64_t> shape = PaddedShape(records, which);
  const bool even =
      std::all_of(records.begin(), records.end(), [&](const auto& record) {
        const std::vector<int64_t>& mine = (*record)[which].shape;
        return std::equal(mine.begin() + 1, mine.end(), shape.begin() + 1,
                          shape.end());
      });
  if (even) return Concatenate(records, which);
  const DType dtype = (*records.front())[which].dtype;
  at::Tensor all = at::full(shape, fill, analysis::ToScalarType(dtype));
  int64_t row = 0;
  for (const auto& record : records) {
    const at::Tensor mine = analysis::ViewOf((*record)[which]);
    at::Tensor part = all.narrow(0, row, mine.size(0));
    for (int64_t axis = 1; axis < mine.dim(); ++axis) {
      part = part.narrow(axis, 0, mine.size(axis));
    }
    part.copy_(mine);
    row += mine.size(0);
  }
  return analysis::ToArray(all, dtype);
}

// Row pointers of rows that each have `k_out` outputs: a record with fewer gets
// empty ones.
Array ConcatenatePointers(const Records& records, int64_t k_out) {
  std::vector<int64_t> indptr = {0};
  for (const auto& record : records) {
    const Array& mine = (*record)[JacobianAnalysis::kIndptr];
    const Array& latents = (*record)[JacobianAnalysis::kOutLatents];
    const int64_t before = indptr.back(), width = latents.shape[1];
    const at::Tensor view = analysis::ViewOf(mine);
    const int64_t* ends = view.const_data_ptr<int64_t>() + 1;
    for (int64_t token = 0; token < latents.shape[0]; ++token) {
      for (int64_t slot = 0; slot < k_out; ++slot) {
        indptr.push_back(slot < width ? before + ends[token * width + slot]
                                      : indptr.back());
      }
    }
  }
  Array array{DType::kInt64, {static_cast<int64_t>(indptr.size())}, {}};
  array.bytes.assign(reinterpret_cast<const char*>(indptr.data()),
                     indptr.size() * sizeof(int64_t));
  return array;
}

// Which prompt, position and source each row is: across layers the records
// tell.
void LabelPairs(const Question& question, const Records& records,
                JacobianAnswer* answer) {
  using analysis::LayersRecord;
  if (records.front()->size() < LayersRecord::kFields) {
    LabelRows(question, answer->prompt, answer->position);
    answer->source_position = answer->position;
    return;
  }
  answer->position = Concatenate(records, LayersRecord::kPosition);
  answer->source_position = Concatenate(records, LayersRecord::kSourcePosition);
  std::vector<int32_t> prompts;
  for (size_t i = 0; i < records.size(); ++i) {
    const Array& mine = (*records[i])[LayersRecord::kPosition];
    prompts.insert(prompts.end(), mine.shape[0], static_cast<int32_t>(i));
  }
  answer->prompt = Int32Array(prompts);
}

}  // namespace

absl::Status CheckPaddedJacobians(const Records& records, int64_t max_bytes) {
  double bytes = 0;
  for (size_t which = 0; which < JacobianAnalysis::kFields; ++which) {
    if (which == JacobianAnalysis::kIndptr) continue;
    double values = 4;  // bytes each
    for (int64_t size : PaddedShape(records, which)) {
      values *= static_cast<double>(size);
    }
    bytes += values;
  }
  if (bytes <= static_cast<double>(max_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the Jacobians, padded to the token with the most active latents, would "
      "take ",
      bytes, " bytes; accepted: ", max_bytes, ": ask for fewer prompts"));
}

absl::StatusOr<Question> AskJacobian(const JacobianRequest& request,
                                     const Sources& sources,
                                     const Limits& limits) {
  ASSIGN_OR_RETURN(PairQuestion pair,
                   BeginPair(request.output_dictionary, request.processing,
                             sources, analysis::Operation::kJacobian));
  const absl::StatusOr<analysis::BridgePlace> place = PlacePair(pair, sources);
  if (!place.ok() || request.frozen ||
      request.source_rule != analysis::SourceRule::kSame) {
    ASSIGN_OR_RETURN(
        Question across,
        AskLayersJacobian(request, std::move(pair), sources, limits));
    across.check_answer = CheckPaddedJacobians;
    return across;
  }
  BridgeQuestion bridge = BridgeAt(std::move(pair), *place, sources);
  Question& question = bridge.question;
  const analysis::JacobianOptions& options = request.options;
  const bool original = options.mlp_input == analysis::MlpInput::kOriginal;
  RETURN_IF_ERROR(AddBridgeRows(request, original, sources, limits, &bridge));
  const dictionary::Manifest& out =
      request.output_dictionary.empty()
          ? sources.dictionary->manifest()
          : sources.others.at(request.output_dictionary).dictionary->manifest();
  RETURN_IF_ERROR(CheckOptions(options, question, limits,
                               AtLeastActive(sources.dictionary->manifest()),
                               std::max<int64_t>(1, AtLeastActive(out))));
  NoteCost(request, sources.dictionary->manifest(), out,
           sources.model->config(), question);
  question.check_answer = CheckPaddedJacobians;
  question.identity = JacobianAnalysis::Identity(bridge.identity, options);
  question.bind =
      [place = bridge.place, cache = sources.bridges, options,
       inputs = request.inputs.has_value(),
       most = limits.max_answer_bytes](const BoundDictionaries& bound) {
        return std::make_shared<JacobianAnalysis>(BridgeOf(place, cache, bound),
                                                  options, inputs, most);
      };
  return std::move(bridge.question);
}

JacobianAnswer AnswerJacobian(const Question& question, Answered answered) {
  const Records& records = answered.records;
  const auto padded = [&records](size_t which, double fill = 0) {
    return ConcatenatePadded(records, which, fill);
  };
  JacobianAnswer answer;
  answer.in_latents = padded(JacobianAnalysis::kInLatents, -1);
  answer.in_acts = padded(JacobianAnalysis::kInActs);
  answer.out_latents = padded(JacobianAnalysis::kOutLatents, -1);
  answer.out_acts = padded(JacobianAnalysis::kOutActs);
  answer.values = padded(JacobianAnalysis::kValues);
  answer.indices = padded(JacobianAnalysis::kIndices);
  answer.indptr = (*records.front())[JacobianAnalysis::kIndptr];
  if (answer.indptr.shape[0] > 0) {
    answer.indptr = ConcatenatePointers(records, answer.out_latents.shape[1]);
  }
  answer.second_order = padded(JacobianAnalysis::kSecondOrder);
  answer.mlp_output = padded(JacobianAnalysis::kMlpOutput);
  answer.gradients = padded(JacobianAnalysis::kGradients);
  LabelPairs(question, records, &answer);
  answer.columns = question.d_sae;
  answer.output_dictionary = question.labels.front();
  answer.output_digest = question.output_digest;
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
