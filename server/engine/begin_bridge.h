#ifndef CUPOLA_SERVER_ENGINE_BEGIN_BRIDGE_H_
#define CUPOLA_SERVER_ENGINE_BEGIN_BRIDGE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/analysis/bridge_source.h"
#include "server/engine/question.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

// A question between two dictionaries of one model: begun, with its sequences
// not yet added. question.others holds the output dictionary.
struct PairQuestion {
  Question question;
  DictionarySourcePtr out;
};

// `output`: the output dictionary's name; empty: `sources.dictionary` is a pair
// and stands for both. Sets the processing (the request's, else the one that
// the dictionaries declare). INVALID_ARGUMENT where the two are not of one
// model or declare different processings.
absl::StatusOr<PairQuestion> BeginPair(
    const std::string& output,
    const std::optional<model::Processing>& processing, const Sources& sources,
    analysis::Operation operation);

// Where a pair stands around an MLP. Errors of PlaceBridge.
absl::StatusOr<analysis::BridgePlace> PlacePair(const PairQuestion& pair,
                                                const Sources& sources);

// The same around one MLP.
struct BridgeQuestion {
  Question question;
  analysis::BridgePlace place;
  storage::Digest identity{};  // of the bridge
};

// BeginPair for dictionaries around one MLP. INVALID_ARGUMENT also where they
// are not.
absl::StatusOr<BridgeQuestion> BeginBridge(
    const std::string& output,
    const std::optional<model::Processing>& processing, const Sources& sources,
    analysis::Operation operation);

// A pair as the bridge that stands at `place`.
BridgeQuestion BridgeAt(PairQuestion pair, const analysis::BridgePlace& place,
                        const Sources& sources);

// What a request brings, as AddInputsOrPrompts; inputs are rows at the input
// dictionary's hook point. `at_original`: the MLP is evaluated at the
// activation itself, which inputs are only if that dictionary also decodes
// there.
template <typename Request>
absl::Status AddBridgeRows(const Request& request, bool at_original,
                           const Sources& sources, const Limits& limits,
                           BridgeQuestion* bridge) {
  Question& question = bridge->question;
  const auto processing = question.provenance.processing;
  if (!request.inputs.has_value()) {
    return AddPrompts(*request.prompts, request.positions, processing, sources,
                      limits, question);
  }
  if (at_original && bridge->place.read != bridge->place.x) {
    return absl::InvalidArgumentError(
        "inputs: the input dictionary reads elsewhere than it decodes, so that "
        "its inputs are not the MLP's; accepted: prompts, or mlp_input "
        "RECONSTRUCTION");
  }
  RETURN_IF_ERROR(AddInputs(*request.inputs, request.positions, std::nullopt,
                            sources, limits, question));
  question.needs_model = bridge->place.source == dictionary::MlpSource::kModel;
  question.provenance.processing = processing;
  return absl::OkStatus();
}

// A bridge between the dictionaries a question has loaded.
analysis::BridgeSource BridgeOf(const analysis::BridgePlace& place,
                                std::shared_ptr<analysis::BridgeCache> cache,
                                const BoundDictionaries& bound);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_BEGIN_BRIDGE_H_
