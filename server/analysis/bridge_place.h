#ifndef CUPOLA_SERVER_ANALYSIS_BRIDGE_PLACE_H_
#define CUPOLA_SERVER_ANALYSIS_BRIDGE_PLACE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/dictionary/dictionary_source.h"
#include "server/dictionary/manifest.h"
#include "server/model/hook_point.h"
#include "server/model/model_config.h"

namespace cupola::analysis {

// Where two dictionaries stand around an MLP.
struct BridgePlace {
  model::HookPoint read;  // the input dictionary encodes this
  model::HookPoint x;     // and decodes here: what the bridge begins with
  model::HookPoint y;     // the output dictionary encodes this: its end
  dictionary::MlpSource source = dictionary::MlpSource::kModel;
  // What lies between x and the MLP: the whole norm, its gain and bias only,
  // or nothing.
  bool norm = false, gain = false;
  bool post_norm = false;  // between the MLP and y
  bool identity = false;   // x itself also reaches y: y = x + mlp(norm(x))
  // Of the MLP.
  model::Activation activation = model::Activation::kRelu;
  bool gated = false;
  int64_t d_mlp = 0;
};

// One end of a bridge, as a question names it.
struct BridgeEnd {
  const dictionary::Manifest* manifest;  // not owned
  dictionary::Half half;
};

// INVALID_ARGUMENT for dictionaries that do not stand at one MLP's input and
// output, with the points that are accepted; for an output dictionary whose
// encoder has no derivative (matching pursuit); for an MLP of the pair's file
// between dictionaries that are not that pair. `same_entry`: both are halves of
// one entry, which then tells whose MLP it is.
absl::StatusOr<BridgePlace> PlaceBridge(const BridgeEnd& in,
                                        const BridgeEnd& out, bool same_entry,
                                        const model::ModelConfig& config);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_BRIDGE_PLACE_H_
