#include "server/model/continued_attention.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace cupola::model {
namespace {

// Rows that continue one kept row: a slice of the batch.
struct Group {
  int64_t begin = 0, size = 0;
  int64_t kept_row = 0;
  int64_t prefix = 0;  // kept positions that any of the rows sees
  bool even = true;    // all of them see the same
};

std::vector<Group> GroupsOf(const Continuation& continuation) {
  std::vector<Group> groups;
  for (size_t i = 0; i < continuation.kept_rows.size(); ++i) {
    const int64_t first = continuation.first[i];
    if (groups.empty() || groups.back().kept_row != continuation.kept_rows[i]) {
      groups.push_back(
          {static_cast<int64_t>(i), 0, continuation.kept_rows[i], first, true});
    }
    Group& group = groups.back();
    ++group.size;
    group.even &= first == group.prefix;
    group.prefix = std::max(group.prefix, first);
  }
  return groups;
}

// Where a query does not see a key: bool [group, 1, positions, prefix +
// positions], the kept keys first. Undefined: it sees every one.
at::Tensor Hidden(const Group& group, const std::vector<int64_t>& first,
                  int64_t positions, int64_t window, at::Device device) {
  const bool windowed = window > 0 && window < group.prefix + positions;
  if (group.even && positions == 1 && !windowed) return {};
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  // [group, 1, 1, 1], absolute.
  const at::Tensor start =
      at::tensor(at::ArrayRef<int64_t>(first).slice(group.begin, group.size),
                 at::kLong)
          .to(device)
          .view({-1, 1, 1, 1});
  const at::Tensor own = at::arange(positions, options);
  const at::Tensor query = start + own.view({1, 1, -1, 1});
  const at::Tensor kept = at::arange(group.prefix, options).view({1, 1, 1, -1});
  at::Tensor before =
      (kept >= start).expand({group.size, 1, positions, group.prefix});
  at::Tensor after = (own.view({1, -1}) > own.view({-1, 1}))
                         .expand({group.size, 1, positions, positions});
  if (windowed) {
    before = before.logical_or(kept <= query - window);
    after =
        after.logical_or((own.view({1, -1}) <= own.view({-1, 1}) - window)
                             .expand({group.size, 1, positions, positions}));
  }
  return at::cat({before, after}, -1);
}

// One group. Heads that share a key/value head lie side by side: with `r` of
// them per key/value head, tensors are [kv, group, r, positions, ...]. Scores
// exist for a few query positions at a time: those of a long prompt as a whole
// would be larger than the model.
at::Tensor Attend(const ModelConfig& config, int layer,
                  const Continuation& continuation, const Group& group,
                  const at::Tensor& q, const at::Tensor& k,
                  const at::Tensor& v) {
  constexpr int64_t kScoreValues = int64_t{1} << 25;
  const AttentionLayer& settings = config.attention[layer];
  const int64_t kv = config.n_kv_heads, r = config.n_heads / kv;
  const int64_t g = group.size, positions = q.size(1), width = config.d_head;
  const auto kept = [&](const std::vector<at::Tensor>& all) {
    return all[layer].select(0, group.kept_row).narrow(1, 0, group.prefix);
  };
  const auto own = [&](const at::Tensor& t) {  // [kv * group, positions, width]
    return t.permute({2, 0, 1, 3}).reshape({kv * g, positions, width});
  };
  const at::Tensor kept_keys = kept(continuation.kept->keys).transpose(1, 2);
  const at::Tensor kept_values = kept(continuation.kept->values);
  const at::Tensor own_keys = own(k).transpose(1, 2), own_values = own(v);
  const at::Tensor queries = q.unflatten(2, {kv, r}).permute({2, 0, 3, 1, 4});
  const at::Tensor hidden =
      Hidden(group, continuation.first, positions, settings.window, q.device());
  const int64_t chunk = std::max<int64_t>(
      1, kScoreValues / (kv * g * r * (group.prefix + positions)));
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < positions; begin += chunk) {
    const int64_t n = std::min(chunk, positions - begin);
    const at::Tensor mine = queries.narrow(3, begin, n).contiguous();
    at::Tensor scores =
        at::cat({at::bmm(mine.view({kv, g * r * n, width}), kept_keys)
                     .view({kv, g, r, n, group.prefix}),
                 at::bmm(mine.view({kv * g, r * n, width}), own_keys)
                     .view({kv, g, r, n, positions})},
                -1);
    scores.div_(settings.scale);
    if (config.attention_softcap > 0) {
      scores.div_(config.attention_softcap)
          .tanh_()
          .mul_(config.attention_softcap);
    }
    if (hidden.defined()) {
      scores.masked_fill_(hidden.narrow(2, begin, n),
                          -std::numeric_limits<double>::infinity());
    }
    const at::Tensor pattern = at::softmax(scores, -1);
    at::Tensor z = at::bmm(pattern.narrow(-1, group.prefix, positions)
                               .reshape({kv * g, r * n, positions}),
                           own_values)
                       .view({kv, g, r, n, width});
    z.add_(at::bmm(pattern.narrow(-1, 0, group.prefix)
                       .reshape({kv, g * r * n, group.prefix}),
                   kept_values)
               .view(z.sizes()));
    parts.push_back(z.permute({1, 3, 0, 2, 4}).reshape({g, n, kv * r, width}));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts, 1);
}

}  // namespace

at::Tensor ContinuedAttention(const ModelConfig& config, int layer,
                              const Continuation& continuation,
                              const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v) {
  std::vector<at::Tensor> parts;
  for (const Group& group : GroupsOf(continuation)) {
    const auto rows = [&](const at::Tensor& t) {
      return t.narrow(0, group.begin, group.size);
    };
    parts.push_back(
        Attend(config, layer, continuation, group, rows(q), rows(k), rows(v)));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

at::Tensor AbsolutePositions(const Continuation& continuation,
                             int64_t positions, int64_t n_ctx,
                             at::Device device) {
  const at::Tensor own = at::arange(positions, at::kLong);
  return (at::tensor(continuation.first, at::kLong).unsqueeze(-1) + own)
      .clamp_max_(n_ctx - 1)
      .to(device);
}

}  // namespace cupola::model
