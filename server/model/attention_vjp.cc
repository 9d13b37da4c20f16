#include "server/model/attention_vjp.h"

#include <algorithm>
#include <limits>

namespace cupola::model {
namespace {

at::Tensor IndexOf(const std::vector<int64_t>& positions, at::Device device) {
  return at::tensor(positions, at::kLong).to(device);
}

// One call's work. Below, h counts key/value heads, g the query heads that
// share one, and r rows of cotangents.
class Attend {
 public:
  Attend(const ModelConfig& config, int layer, const CleanHeads& clean,
         const at::Tensor& z, const AttentionPlaces& places, bool frozen)
      : config_(config),
        layer_(config.attention[layer]),
        own_(places.own),
        frozen_(frozen),
        queries_(IndexOf(places.queries, z.device())),
        reached_(IndexOf(places.reached, z.device())),
        rows_(z.size(0)) {
    const int64_t h = config.n_kv_heads, g = config.n_heads / h;
    const int64_t keys =
        1 + *std::max_element(places.queries.begin(), places.queries.end());
    k_ = clean.k.narrow(0, 0, keys).transpose(0, 1).contiguous();
    v_ = clean.v.narrow(0, 0, keys).transpose(0, 1).contiguous();
    q_ = clean.q.index_select(0, queries_)
             .unflatten(1, {h, g})
             .permute({1, 2, 0, 3});
    z_ = z.unflatten(2, {h, g, config.d_head}).permute({2, 0, 3, 1, 4});
  }

  HeadCotangents Run() {
    const int64_t queries = queries_.size(0), keys = k_.size(1);
    const int64_t step = std::max<int64_t>(
        1, kAttentionVjpValues / (rows_ * config_.n_heads * keys));
    for (int64_t first = 0; first < queries; first += step) {
      Block(first, std::min(step, queries - first));
    }
    HeadCotangents result;
    result.v = Keys(v_parts_);
    if (frozen_) return result;
    result.k = Keys(k_parts_);
    // [h, r, g, queries, d_head] -> [r, queries, h, g, d_head]
    result.q = at::cat(q_parts_, 3).permute({1, 3, 0, 2, 4}).flatten(2);
    return result;
  }

 private:
  // `count` queries from `first` on.
  void Block(int64_t first, int64_t count) {
    const int64_t h = k_.size(0), g = q_.size(1), d = k_.size(2);
    const int64_t keys = k_.size(1);
    const at::Tensor at = queries_.narrow(0, first, count);
    const at::Tensor q = q_.narrow(2, first, count).reshape({h, g * count, d});
    const at::Tensor z = z_.narrow(3, first, count);  // [h, r, g, count, d]
    at::Tensor slope;                                 // of the softcap
    const at::Tensor pattern = Pattern(q, at, &slope).view({h, g, count, keys});
    AddKeys(pattern.unsqueeze(1), z, first, &v_parts_);
    if (frozen_) return;
    const at::Tensor flat = z.reshape({h, rows_ * g * count, d});
    at::Tensor scores =
        at::bmm(flat, v_.transpose(1, 2)).view({h, rows_, g, count, keys});
    const at::Tensor mean =
        (z * at::matmul(pattern, v_.unsqueeze(1)).unsqueeze(1))
            .sum(-1, /*keepdim=*/true);
    scores.sub_(mean).mul_(pattern.unsqueeze(1));
    if (slope.defined()) scores.mul_(slope.view({h, 1, g, count, keys}));
    scores.div_(layer_.scale);
    q_parts_.push_back(
        at::bmm(scores.view({h, -1, keys}), k_).view({h, rows_, g, count, d}));
    AddKeys(scores, q.view({h, 1, g, count, d}), first, &k_parts_);
  }

  // q: [h, queries, d_head] at positions `at` in turn -> [h, queries, keys].
  at::Tensor Pattern(const at::Tensor& q, const at::Tensor& at,
                     at::Tensor* slope) const {
    const int64_t count = at.size(0), keys = k_.size(1);
    at::Tensor scores = at::bmm(q, k_.transpose(1, 2)).div_(layer_.scale);
    if (config_.attention_softcap > 0) {
      scores.div_(config_.attention_softcap).tanh_();
      *slope = 1 - scores * scores;
      scores.mul_(config_.attention_softcap);
    }
    const at::Tensor key = at::arange(keys, at.options());
    const at::Tensor query = at.unsqueeze(-1);
    at::Tensor hidden = key > query;
    if (layer_.window > 0) {
      hidden = hidden.logical_or(key <= query - layer_.window);
    }
    scores.view({k_.size(0), -1, count, keys})
        .masked_fill_(hidden, -std::numeric_limits<double>::infinity());
    return at::softmax(scores, -1);
  }

  // What weights [h, r, g, queries, keys] times `rows` [h, r, g, queries, d]
  // give the keys, summed over queries and their heads; r may be 1 in either.
  void AddKeys(const at::Tensor& weights, const at::Tensor& rows, int64_t first,
               std::vector<at::Tensor>* parts) const {
    if (own_) {
      const at::Tensor at = queries_.narrow(0, first, weights.size(3));
      std::vector<int64_t> shape = weights.sizes().vec();
      shape.back() = 1;
      const at::Tensor mine =
          weights.gather(-1, at.view({1, 1, 1, -1, 1}).expand(shape));
      parts->push_back((mine * rows).sum(2));
      return;
    }
    const auto joined = [](const at::Tensor& x) { return x.flatten(2, 3); };
    const at::Tensor sum =
        at::matmul(joined(weights.index_select(-1, reached_)).transpose(-2, -1),
                   joined(rows));
    if (parts->empty()) {
      parts->push_back(sum);
    } else {
      parts->front().add_(sum);
    }
  }

  // [h, r, reached, d_head] -> [r, reached, h d_head]
  static at::Tensor Keys(const std::vector<at::Tensor>& parts) {
    return at::cat(parts, 2).permute({1, 2, 0, 3}).flatten(2);
  }

  const ModelConfig& config_;
  const AttentionLayer& layer_;
  const bool own_, frozen_;
  const at::Tensor queries_, reached_;
  const int64_t rows_;
  at::Tensor q_, k_, v_;  // [h, g, queries, d], [h, keys, d]
  at::Tensor z_;          // [h, r, g, queries, d]
  // By queries; of keys that all queries reach their one sum.
  std::vector<at::Tensor> q_parts_, k_parts_, v_parts_;
};

}  // namespace

HeadCotangents AttentionVjp(const ModelConfig& config, int layer,
                            const CleanHeads& clean, const at::Tensor& z,
                            const AttentionPlaces& places, bool frozen) {
  return Attend(config, layer, clean, z, places, frozen).Run();
}

}  // namespace cupola::model
