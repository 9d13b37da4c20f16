#include "server/analysis/bridge_place.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cupola::analysis {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using dictionary::Kind;
using dictionary::MlpSource;
using model::HookKind;
using model::HookPoint;

// Where an end's encoder reads and its decoder writes. A half of a pair is an
// SAE at its own hook point.
HookPoint EncoderPoint(const BridgeEnd& end) {
  return end.half == dictionary::Half::kOut ? end.manifest->hook_out
                                            : end.manifest->hook_in;
}
HookPoint DecoderPoint(const BridgeEnd& end) {
  if (end.manifest->kind == Kind::kPair) return EncoderPoint(end);
  return end.manifest->hook_out;
}

// The point where the residual enters the MLP's norm, besides hook_mlp_in.
HookKind ResidualPoint(const model::ModelConfig& config) {
  return config.parallel_blocks ? HookKind::kResidPre : HookKind::kResidMid;
}

// Fills in what lies between x and the MLP; false where x is no such point.
bool PlaceInput(HookKind kind, const model::ModelConfig& config,
                BridgePlace* place) {
  if (kind == HookKind::kLn2Out) return true;
  place->gain = true;
  if (kind == HookKind::kLn2Normalized) return true;
  place->norm = true;
  return kind == HookKind::kMlpIn || kind == ResidualPoint(config);
}

}  // namespace

absl::StatusOr<BridgePlace> PlaceBridge(const BridgeEnd& in,
                                        const BridgeEnd& out, bool same_entry,
                                        const model::ModelConfig& config) {
  BridgePlace place;
  place.activation = config.activation;
  place.gated = config.gated_mlp;
  place.d_mlp = config.d_mlp;
  place.read = EncoderPoint(in);
  place.x = DecoderPoint(in);
  place.y = EncoderPoint(out);
  if (!PlaceInput(place.x.kind, config, &place)) {
    const HookPoint residual = {ResidualPoint(config), place.x.layer};
    return InvalidArgumentError(
        StrCat("input_dictionary decodes at ", model::HookName(place.x),
               "; accepted: an MLP's input, blocks.L.ln2.hook_normalized, "
               "blocks.L.mlp.hook_in, blocks.L.hook_mlp_in or ",
               residual.layer < 0 ? "the residual stream before it"
                                  : model::HookName(residual).c_str()));
  }
  if (place.y.layer != place.x.layer) {
    return InvalidArgumentError(
        StrCat("output_dictionary reads ", model::HookName(place.y),
               ", and input_dictionary decodes at ", model::HookName(place.x),
               "; accepted: both at the MLP of one layer"));
  }
  if (place.y.kind == HookKind::kResidPost &&
      place.x.kind == HookKind::kResidMid) {
    place.identity = true;
  } else if (place.y.kind != HookKind::kMlpOut) {
    return InvalidArgumentError(StrCat(
        "output_dictionary reads ", model::HookName(place.y),
        "; accepted: ", model::HookName({HookKind::kMlpOut, place.x.layer}),
        place.x.kind == HookKind::kResidMid
            ? StrCat(" or ",
                     model::HookName({HookKind::kResidPost, place.x.layer}))
            : ""));
  }
  if (out.manifest->architecture ==
      dictionary::Architecture::kMatchingPursuit) {
    return InvalidArgumentError(
        "output_dictionary is a matching pursuit, whose activations are no "
        "differentiable function of its input; accepted: standard, topk, "
        "jumprelu and gated encoders");
  }
  place.post_norm = config.post_norms;
  if (same_entry && in.manifest->mlp_source == MlpSource::kFile) {
    // The file's MLP reads the pair's input as it is.
    place.source = MlpSource::kFile;
    place.norm = place.gain = place.post_norm = false;
  }
  return place;
}

}  // namespace cupola::analysis
