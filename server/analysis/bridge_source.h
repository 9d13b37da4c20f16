#ifndef CUPOLA_SERVER_ANALYSIS_BRIDGE_SOURCE_H_
#define CUPOLA_SERVER_ANALYSIS_BRIDGE_SOURCE_H_

#include <memory>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/analysis/bridge_cache.h"
#include "server/analysis/bridge_place.h"
#include "server/analysis/mlp_bridge.h"
#include "server/dictionary/dictionary.h"
#include "storage/digest.h"

namespace cupola::analysis {

// What every analysis between two dictionaries starts from. Immutable.
struct BridgeSource {
  BridgePlace place;
  std::shared_ptr<const dictionary::Dictionary> in, out;
  std::shared_ptr<BridgeCache> cache;

  // All of the bridge but the model, which a stored answer's key names apart.
  static storage::Digest Identity(const BridgePlace& place,
                                  const storage::Digest& in,
                                  dictionary::Half in_half,
                                  const storage::Digest& out,
                                  dictionary::Half out_half);

  // The bridge, kept from earlier requests or made now.
  absl::StatusOr<std::shared_ptr<const MlpBridge>> Get(
      const model::Model* model) const;

  // The hook points whose rows it begins with.
  std::set<model::HookPoint> Captures(bool reconstruction) const;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_BRIDGE_SOURCE_H_
