#include "server/analysis/sample_groups.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace cupola::analysis {

at::Tensor SampleGroups::ValuesOf(const PairSamples& samples,
                                  const at::Tensor& values) const {
  std::vector<int64_t> offsets;  // of each segment's values
  int64_t all = 0;
  for (const ScreenedSegment& segment : tokens) {
    offsets.push_back(all);
    all += (segment.end - segment.begin) *
           static_cast<int64_t>(segment.latents.size());
  }
  const float* const from = values.const_data_ptr<float>();
  const at::Tensor outs = samples.out.cpu();
  at::Tensor mine = at::empty({samples.size()}, at::kFloat);
  float* const to = mine.mutable_data_ptr<float>();
  for (int64_t i = 0; i < samples.size(); ++i) {
    const ScreenedSegment& segment = tokens[group[i]];
    const std::vector<int32_t>& latents = segment.latents;
    const int64_t place = std::lower_bound(latents.begin(), latents.end(),
                                           outs.const_data_ptr<int64_t>()[i]) -
                          latents.begin();
    to[i] =
        from[offsets[group[i]] +
             (row[i] - segment.begin) * static_cast<int64_t>(latents.size()) +
             place];
  }
  return mine;
}

SampleGroups GroupSamples(const PairSamples& samples) {
  const auto host = [](const at::Tensor& tensor) {
    return tensor.cpu().contiguous();
  };
  const at::Tensor tokens = host(samples.token), ins = host(samples.in),
                   outs = host(samples.out), deltas = host(samples.delta);
  const auto* token = tokens.const_data_ptr<int64_t>();
  const auto* in = ins.const_data_ptr<int64_t>();
  const auto* out = outs.const_data_ptr<int64_t>();
  const auto* delta = deltas.const_data_ptr<float>();
  const int64_t n = samples.size();
  const auto key = [&](int64_t i) {
    return std::make_tuple(token[i], in[i], delta[i]);
  };
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return key(a) < key(b); });

  SampleGroups groups;
  groups.group.resize(n);
  groups.row.resize(n);
  std::vector<int64_t> move_token, move_in, which;
  std::vector<float> amounts;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t sample = order[i];
    const bool fresh = i == 0 || key(sample) != key(order[i - 1]);
    if (fresh && (i == 0 || token[sample] != which.back())) {
      which.push_back(token[sample]);
      groups.tokens.emplace_back().begin =
          static_cast<int64_t>(move_token.size());
    }
    if (fresh) {
      move_token.push_back(token[sample]);
      move_in.push_back(in[sample]);
      amounts.push_back(-delta[sample]);
    }
    ScreenedSegment& segment = groups.tokens.back();
    segment.end = static_cast<int64_t>(move_token.size());
    segment.latents.push_back(static_cast<int32_t>(out[sample]));
    groups.group[sample] = static_cast<int64_t>(groups.tokens.size()) - 1;
    groups.row[sample] = segment.end - 1;
  }
  const auto moves = static_cast<int64_t>(move_token.size());
  for (size_t i = 0; i < groups.tokens.size(); ++i) {
    ScreenedSegment& segment = groups.tokens[i];
    segment.first = segment.last = moves + static_cast<int64_t>(i);
    std::sort(segment.latents.begin(), segment.latents.end());
    segment.latents.erase(
        std::unique(segment.latents.begin(), segment.latents.end()),
        segment.latents.end());
  }
  const at::Device device = samples.token.device();
  groups.moves = {at::tensor(move_token, at::kLong).to(device),
                  at::tensor(move_in, at::kLong).to(device),
                  at::tensor(amounts, at::kFloat).unsqueeze(1).to(device)};
  groups.token = at::tensor(which, at::kLong).to(device);
  return groups;
}

}  // namespace cupola::analysis
