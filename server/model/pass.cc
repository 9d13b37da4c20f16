#include "server/model/pass.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::model {

Pass::Pass(const ModelConfig& config, const ForwardRequest& request,
           ForwardResult* result)
    : request_(request),
      result_(result),
      captures_(config.n_layers + 1),
      edits_(config.n_layers + 1) {
  static_assert(static_cast<int>(HookKind::kLogits) < 63);
  if (request.keep.has_value()) {
    result->kept = std::make_shared<KeptState>();
    result->kept->keys.resize(config.n_layers);
    result->kept->values.resize(config.n_layers);
  }
  for (const HookPoint& point : request.captures) {
    captures_[point.layer + 1] |= Bit(point.kind);
    last_order_ = std::max(last_order_, ForwardOrder(point));
  }
  for (const HookPoint& point : request.edits) {
    edits_[point.layer + 1] |= Bit(point.kind);
  }
  if (request.logits) {
    last_order_ = std::max(last_order_, ForwardOrder({HookKind::kLogits}));
  }
  if (request.stop_at_layer.has_value()) {
    const int stop = *request.stop_at_layer;
    const HookPoint last = stop == 0
                               ? HookPoint{HookKind::kPosEmbed}
                               : HookPoint{HookKind::kResidPost, stop - 1};
    last_order_ = std::max(last_order_, ForwardOrder(last));
  }
}

HookPoint Pass::Point(HookKind kind) const { return {kind, layer_}; }

void Pass::KeepResidual(int layer, const at::Tensor& residual) {
  if (!request_.keep.has_value()) return;
  for (int wanted : request_.keep->residuals) {
    if (wanted == layer) result_->kept->residuals[layer] = residual;
  }
}

void Pass::KeepHeads(const at::Tensor& keys, const at::Tensor& values) {
  if (!request_.keep.has_value() || layer_ < request_.keep->from_layer) return;
  const auto by_head = [](const at::Tensor& heads) {
    return heads.transpose(1, 2).contiguous();
  };
  result_->kept->keys[layer_] = by_head(keys);
  result_->kept->values[layer_] = by_head(values);
}

bool Pass::WatchesAny(HookKind first, HookKind last) const {
  return ((captures_[layer_ + 1] | edits_[layer_ + 1]) & Bits(first, last)) !=
         0;
}

bool Pass::EditsAny(HookKind first, HookKind last) const {
  return (edits_[layer_ + 1] & Bits(first, last)) != 0;
}

absl::Status Pass::Edit(const HookPoint& point, at::Tensor* value) {
  const at::Tensor before = *value;
  *value = before.clone(at::MemoryFormat::Contiguous);
  RETURN_IF_ERROR(request_.edit(point, value));
  if (!value->defined() || value->sizes() != before.sizes() ||
      value->scalar_type() != before.scalar_type() ||
      value->device() != before.device()) {
    return absl::InvalidArgumentError(
        absl::StrCat("an edit of ", HookName(point),
                     " must keep the tensor's shape, dtype and device"));
  }
  return absl::OkStatus();
}

absl::Status Pass::Visit(HookKind kind, at::Tensor* value) {
  if (!Watches(kind)) return absl::OkStatus();
  const HookPoint point = Point(kind);
  if (Edits(kind)) RETURN_IF_ERROR(Edit(point, value));
  if ((captures_[layer_ + 1] & Bit(kind)) != 0) {
    // A slice of a wider tensor is copied, so that it does not keep all of it.
    result_->captures[point] = value->contiguous();
  }
  return absl::OkStatus();
}

}  // namespace cupola::model
