#include "server/engine/ask_layers_jacobian.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/layers_jacobian.h"
#include "server/engine/prompt_resolution.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::LayersJacobianAnalysis;
using analysis::LayersJacobianOptions;
using analysis::SourceRule;

absl::Status CheckPlaces(const LayersJacobianOptions& options,
                         const dictionary::Manifest& out,
                         const model::ModelConfig& config) {
  const auto& [from, to, frozen] = options.span;
  for (const auto& [does, point] :
       {std::pair{"input_dictionary decodes at ", to},
        std::pair{"output_dictionary reads ", from}}) {
    if (!model::SpanAccepts(point.kind)) {
      return InvalidArgumentError(
          StrCat(does, model::HookName(point),
                 "; accepted: ", model::SpanKinds(config)));
    }
  }
  if (model::ForwardOrder(to) > model::ForwardOrder(from)) {
    return InvalidArgumentError(
        StrCat("input_dictionary decodes at ", model::HookName(to),
               ", which comes after ", model::HookName(from),
               ", which output_dictionary reads; accepted: an input that is "
               "not after the output"));
  }
  if (out.architecture == dictionary::Architecture::kMatchingPursuit) {
    return InvalidArgumentError(
        "output_dictionary is a matching pursuit, whose activations are no "
        "differentiable function of its input; accepted: standard, topk, "
        "jumprelu and gated encoders");
  }
  return absl::OkStatus();
}

// What only a Jacobian around one MLP has.
absl::Status CheckFields(const JacobianRequest& request, bool file_mlp) {
  const analysis::JacobianOptions& options = request.options;
  const auto refused = [](const char* field, const char* accepted) {
    return InvalidArgumentError(
        StrCat(field,
               " is for dictionaries at the input and the output of one MLP, "
               "at one position and without frozen parts; accepted: ",
               accepted));
  };
  if (request.inputs.has_value()) return refused("inputs", "prompts");
  if (options.mlp_input != analysis::MlpInput::kOriginal) {
    return refused("mlp_input RECONSTRUCTION", "ORIGINAL");
  }
  if (options.second_order) return refused("second_order", "false");
  if (options.mlp_output) return refused("mlp_output", "false");
  if (options.gradients) return refused("gradients", "false");
  if (file_mlp) {
    return InvalidArgumentError(
        "mode or source_positions is set for a pair whose MLP is its file's, "
        "not the model's; accepted: mode FULL without source_positions");
  }
  return absl::OkStatus();
}

absl::Status AddSources(const JacobianRequest& request, Question* question) {
  if (request.source_rule != SourceRule::kGiven) return absl::OkStatus();
  ASSIGN_OR_RETURN(
      auto positions,
      ResolvePositions(request.source_positions, question->provenance.token_ids,
                       "source_positions"));
  for (size_t i = 0; i < positions.size(); ++i) {
    auto sequence =
        std::make_shared<analysis::Sequence>(*question->sequences[i]);
    sequence->lists = {std::move(positions[i])};
    question->sequences[i] = std::move(sequence);
  }
  return absl::OkStatus();
}

// Refused while nothing is known but how many rows there are: each has at least
// a TopK's slots.
absl::Status CheckRows(const Question& question,
                       const LayersJacobianOptions& options, double k_in,
                       double k_out, const Limits& limits) {
  double rows = 0;
  for (const auto& sequence : question.sequences) {
    for (int64_t position : sequence->positions) {
      rows += options.sources == SourceRule::kSame ? 1
              : options.sources == SourceRule::kAll
                  ? position + 1
                  : sequence->lists.front().size();
    }
  }
  const double each =
      12 + 8 * (k_in + k_out) +
      (options.block && !options.all_inputs ? 4 * k_in * k_out : 0);
  if (rows * each <= static_cast<double>(limits.max_answer_bytes)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(StrCat(
      "the Jacobians of ", rows, " pairs of positions would hold at least ",
      rows * each, " bytes; the server sends at most ", limits.max_answer_bytes,
      ": ask for fewer prompts, positions or source_positions"));
}

// Every output latent of every position takes a way back, which is about two
// ways forward.
void NoteCost(const dictionary::Manifest& in, const dictionary::Manifest& out,
              const LayersJacobianOptions& options, Question& question) {
  bool* const guessed = &question.answer_is_guessed;
  const double k_in = static_cast<double>(MostActive(in, guessed));
  const double k_out = static_cast<double>(MostActive(out, guessed));
  size_t longest = 0, positions = 0;
  for (const auto& sequence : question.sequences) {
    longest = std::max(longest, sequence->tokens.size());
    positions = std::max(positions, sequence->positions.size());
  }
  question.work.passes = 1 + 2 * k_out * static_cast<double>(positions);
  const double sources =
      options.sources == SourceRule::kSame ? 1 : static_cast<double>(longest);
  const double columns =
      options.all_inputs ? static_cast<double>(kManyActive) : k_in;
  *guessed = *guessed || options.all_inputs;
  question.answer_bytes = static_cast<double>(RowCount(question)) * sources *
                          (8 * (k_in + k_out) + 8 * k_out * columns);
}

int64_t Slots(const dictionary::Manifest& manifest) {
  return manifest.architecture == dictionary::Architecture::kTopK ? manifest.k
                                                                  : 1;
}

}  // namespace

absl::StatusOr<Question> AskLayersJacobian(const JacobianRequest& request,
                                           PairQuestion pair,
                                           const Sources& sources,
                                           const Limits& limits) {
  Question& question = pair.question;
  const dictionary::DictionarySource& in = *sources.dictionary;
  const dictionary::Manifest& manifest = in.manifest();
  const DictionaryUse& use = question.others.front();
  LayersJacobianOptions options;
  const auto [read, decoded] = HooksOf(manifest, question.half);
  options.read = read;
  options.span = {HooksOf(pair.out->manifest(), use.half).first, decoded,
                  request.frozen};
  options.sources = request.source_rule;
  options.mask = request.options.mask;
  options.all_inputs = request.options.all_inputs;
  options.min_abs = request.options.min_abs;
  options.top = request.options.top;
  options.block = request.options.block;
  RETURN_IF_ERROR(
      CheckPlaces(options, pair.out->manifest(), sources.model->config()));
  RETURN_IF_ERROR(CheckFields(
      request, use.entry == question.dictionary &&
                   manifest.mlp_source == dictionary::MlpSource::kFile));
  RETURN_IF_ERROR(AddPrompts(*request.prompts, request.positions,
                             question.provenance.processing, sources, limits,
                             question));
  RETURN_IF_ERROR(AddSources(request, &question));
  RETURN_IF_ERROR(CheckRows(question, options, Slots(manifest),
                            Slots(pair.out->manifest()), limits));
  NoteCost(manifest, pair.out->manifest(), options, question);
  question.max_record_bytes = limits.max_answer_bytes;
  question.identity = LayersJacobianAnalysis::Identity(
      in.digest(), question.half, pair.out->digest(), use.half, options);
  question.bind = [options, most = limits.max_answer_bytes](
                      const BoundDictionaries& bound) {
    return std::make_shared<LayersJacobianAnalysis>(
        bound.dictionary, bound.others.front(), options, most);
  };
  return std::move(pair.question);
}

}  // namespace cupola::engine
