#include "server/analysis/bridge_source.h"

namespace cupola::analysis {

storage::Digest BridgeSource::Identity(const BridgePlace& place,
                                       const storage::Digest& in,
                                       dictionary::Half in_half,
                                       const storage::Digest& out,
                                       dictionary::Half out_half) {
  return storage::Hasher("bridge/1")
      .AddDigest(in)
      .AddInt(static_cast<int64_t>(in_half))
      .AddDigest(out)
      .AddInt(static_cast<int64_t>(out_half))
      .AddInt(static_cast<int64_t>(place.source))
      .Finish();
}

absl::StatusOr<std::shared_ptr<const MlpBridge>> BridgeSource::Get(
    const model::Model* model) const {
  storage::Hasher hasher("kept-bridge/1");
  hasher
      .AddDigest(Identity(place, in->source().digest(), in->half(),
                          out->source().digest(), out->half()))
      .AddBytes(in->device().str());
  const int64_t bytes =
      MlpBridge::ProductBytes(place, in->manifest(), out->manifest());
  if (model != nullptr) {
    hasher.AddDigest(model->source().digest())
        .AddInt(static_cast<int64_t>(model->options().processing))
        .AddInt(static_cast<int64_t>(model->options().dtype));
  }
  return cache->Get(hasher.Finish(), bytes, [this, model](bool keep_products) {
    return MlpBridge::Create(place, model, *in, *out, keep_products);
  });
}

std::set<model::HookPoint> BridgeSource::Captures(bool reconstruction) const {
  if (reconstruction) return {place.read};
  return {place.read, place.x};
}

}  // namespace cupola::analysis
