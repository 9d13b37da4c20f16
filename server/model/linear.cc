#include "server/model/linear.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/core/dispatch/Dispatcher.h"
#include "c10/core/GradMode.h"

namespace cupola::model {
namespace {

// oneDNN's prepacked linear layer, as LibTorch registers it with its dispatcher
// on x86 builds.
using ReorderSignature = at::Tensor(const at::Tensor&,
                                    std::optional<int64_t> rows);
using LinearSignature = at::Tensor(const at::Tensor& x,
                                   const at::Tensor& packed,
                                   const std::optional<at::Tensor>& bias,
                                   c10::string_view attribute,
                                   c10::List<std::optional<at::Scalar>> scalars,
                                   std::optional<c10::string_view> algorithm);
using BytesSignature = int64_t(const at::Tensor& packed);

struct OneDnn {
  c10::TypedOperatorHandle<ReorderSignature> reorder;
  c10::TypedOperatorHandle<LinearSignature> linear;
  c10::TypedOperatorHandle<BytesSignature> bytes;
};

// Null where this LibTorch has no such operators.
const OneDnn* FindOneDnn() {
  static const OneDnn* const found = []() -> const OneDnn* {
    auto& dispatcher = c10::Dispatcher::singleton();
    const auto reorder =
        dispatcher.findSchema({"mkldnn::_reorder_linear_weight", ""});
    const auto linear =
        dispatcher.findSchema({"mkldnn::_linear_pointwise", ""});
    const auto bytes = dispatcher.findSchema({"mkldnn::_nbytes", ""});
    if (!reorder || !linear || !bytes) return nullptr;
    return new OneDnn{reorder->typed<ReorderSignature>(),
                      linear->typed<LinearSignature>(),
                      bytes->typed<BytesSignature>()};
  }();
  return found;
}

std::optional<at::Tensor> Optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

// x: [rows, in], contiguous.
at::Tensor ApplyPacked(const OneDnn& onednn, const at::Tensor& x,
                       const at::Tensor& packed, const at::Tensor& bias) {
  return onednn.linear.call(x, packed, Optional(bias), "none",
                            c10::List<std::optional<at::Scalar>>(), "");
}

// Undefined when oneDNN refuses (a bfloat16 weight on a CPU without support).
at::Tensor TryPack(const at::Tensor& weight) {
  const OneDnn* onednn = FindOneDnn();
  if (onednn == nullptr || !at::globalContext().userEnabledMkldnn()) return {};
  try {
    at::Tensor packed = onednn->reorder.call(weight, std::nullopt);
    const at::Tensor probe = at::zeros({1, weight.size(1)}, weight.options());
    (void)ApplyPacked(*onednn, probe, packed, {});
    return packed;
  } catch (const c10::Error&) {
    return {};
  }
}

template <typename Function>
double SecondsOf(const Function& function, int repeats) {
  function();
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    function();
    const std::chrono::duration<double> spent =
        std::chrono::steady_clock::now() - start;
    best = std::min(best, spent.count());
  }
  return best;
}

enum class Layout { kPlain, kPacked, kSplit };

SplitMatrix::Parts PartsFor(Precision precision) {
  return precision == Precision::kFull ? SplitMatrix::Parts::kThree
                                       : SplitMatrix::Parts::kTwo;
}

// The fastest layout for a weight on this CPU, timed with a short prompt's rows
// and a small batch's. Plain has to beat packed by a quarter, so that noise
// does not flip the choice (packed is what pays on most CPUs, see the README's
// table); split has to win by a tenth.
Layout FastestLayout(const at::Tensor& weight, Precision precision) {
  constexpr double kPlainMargin = 1.25, kSplitMargin = 1.1;
  constexpr std::pair<int64_t, int> kRowsAndRepeats[] = {{32, 6}, {256, 4}};
  const at::Tensor packed = TryPack(weight);
  SplitMatrix split;
  // Splitting and padding do not pay for small ones.
  constexpr int64_t kMinSplitValues = 1 << 18;
  if (weight.scalar_type() == at::kFloat && weight.numel() >= kMinSplitValues &&
      SplitMatrix::Supported()) {
    split = SplitMatrix(weight, PartsFor(precision));
  }
  if (!packed.defined() && !split.defined()) return Layout::kPlain;
  // Products over both row counts.
  double plain_time = 1, packed_time = 1, split_time = 1;
  for (const auto& [rows, repeats] : kRowsAndRepeats) {
    const at::Tensor x = at::ones({rows, weight.size(1)}, weight.options());
    plain_time *= SecondsOf([&] { (void)at::linear(x, weight); }, repeats);
    if (packed.defined()) {
      packed_time *= SecondsOf(
          [&] { (void)ApplyPacked(*FindOneDnn(), x, packed, {}); }, repeats);
    }
    if (split.defined()) {
      split_time *= SecondsOf([&] { (void)split.Multiply(x, {}); }, repeats);
    }
  }
  const bool plain = !packed.defined() ||
                     plain_time * kPlainMargin * kPlainMargin < packed_time;
  if (split.defined() && split_time * kSplitMargin * kSplitMargin <
                             (plain ? plain_time : packed_time)) {
    return Layout::kSplit;
  }
  return plain ? Layout::kPlain : Layout::kPacked;
}

// The choice for a shape, made once per process. Very wide or tall weights are
// judged by a part of theirs: the answer does not change beyond it, and the
// timing would be felt.
Layout ChooseLayout(const at::Tensor& weight, Precision precision) {
  constexpr int64_t kMaxProbed = 4096;
  using Shape = std::tuple<int64_t, int64_t, at::ScalarType, Precision>;
  static std::mutex mutex;
  static std::map<Shape, Layout>& choices = *new std::map<Shape, Layout>;
  const int64_t out = std::min(weight.size(0), kMaxProbed);
  const int64_t in = std::min(weight.size(1), kMaxProbed);
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [it, fresh] = choices.emplace(
      Shape{out, in, weight.scalar_type(), precision}, Layout::kPlain);
  if (fresh) {
    it->second = FastestLayout(
        weight.narrow(0, 0, out).narrow(1, 0, in).contiguous(), precision);
  }
  return it->second;
}

}  // namespace

Linear Linear::Create(const at::Tensor& weight, const at::Tensor& bias,
                      at::ScalarType dtype, at::Device device,
                      Precision precision) {
  const c10::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  Linear linear;
  linear.in_features_ = weight.size(0);
  linear.out_features_ = weight.size(1);
  if (bias.defined()) linear.bias_ = bias.to(options).contiguous();
  at::Tensor plain = weight.t().to(options).contiguous();  // [out, in]
  const Layout layout =
      device.is_cpu() ? ChooseLayout(plain, precision) : Layout::kPlain;
  if (layout == Layout::kSplit) {
    linear.split_ = SplitMatrix(plain, PartsFor(precision));
    return linear;
  }
  if (layout == Layout::kPacked) linear.packed_ = TryPack(plain);
  if (!linear.packed_.defined()) {
    // A plain matrix may still be the caller's: own it, so that the caller can
    // drop or change theirs.
    linear.plain_ = plain.is_alias_of(weight) ? plain.clone() : plain;
  }
  return linear;
}

Linear Linear::Shared(const at::Tensor& weight, const at::Tensor& bias) {
  Linear linear;
  linear.in_features_ = weight.size(1);
  linear.out_features_ = weight.size(0);
  linear.plain_ = weight;
  linear.bias_ = bias;
  linear.shared_ = true;
  return linear;
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  if (plain_.defined()) return at::linear(x, plain_, Optional(bias_));
  const at::Tensor rows = x.reshape({-1, in_features_}).contiguous();
  at::Tensor y = rows.size(0) == 0 ? at::empty({0, out_features_}, x.options())
                 : split_.defined()
                     ? split_.Multiply(rows, bias_)
                     : ApplyPacked(*FindOneDnn(), rows, packed_, bias_);
  if (x.dim() == 2) return y;
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = out_features_;
  return y.view(shape);
}

int64_t Linear::resident_bytes() const {
  int64_t bytes = bias_.defined() ? static_cast<int64_t>(bias_.nbytes()) : 0;
  if (packed_.defined()) bytes += FindOneDnn()->bytes.call(packed_);
  bytes += split_.bytes();
  if (plain_.defined() && !shared_) {
    bytes += static_cast<int64_t>(plain_.nbytes());
  }
  return bytes;
}

at::Tensor Linear::Columns(const at::Tensor& outputs) const {
  if (split_.defined()) return split_.Rows(outputs.cpu()).t();
  const at::Tensor rows = plain_.defined() ? plain_ : packed_.to_dense();
  return rows.index_select(0, outputs.to(rows.device())).t();
}

at::Tensor Linear::Weight() const {
  if (plain_.defined()) return plain_.t().contiguous();
  if (split_.defined()) return split_.Weight().t().contiguous();
  return packed_.to_dense().t().contiguous();
}

}  // namespace cupola::model
