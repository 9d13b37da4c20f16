#include "server/analysis/pair_samples.h"

#include <cstring>
#include <vector>

namespace cupola::analysis {
namespace {

// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

int64_t Below(uint64_t random, int64_t n) {
  return static_cast<int64_t>(random % static_cast<uint64_t>(n));
}

at::Tensor Long(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong);
}

PairSamples Draw(const SampleDraw& draw, const Sandwich& s) {
  const at::Tensor in = s.in.indices.cpu().contiguous();
  const at::Tensor out = s.out.indices.cpu().contiguous();
  const at::Tensor in_counts = s.in.valid().sum(1).cpu();
  const at::Tensor out_counts = s.out.valid().sum(1).cpu();
  std::vector<int64_t> tokens, ins, outs;
  for (int64_t row = 0; row < in.size(0); ++row) {
    const int64_t k_in = in_counts.const_data_ptr<int64_t>()[row];
    const int64_t k_out = out_counts.const_data_ptr<int64_t>()[row];
    if (k_in == 0 || k_out == 0) continue;
    const int64_t* my_in = in.const_data_ptr<int64_t>() + row * in.size(1);
    const int64_t* my_out = out.const_data_ptr<int64_t>() + row * out.size(1);
    for (int64_t i = 0; i < draw.count; ++i) {
      const uint64_t random =
          Mix(Mix(Mix(draw.seed) ^ static_cast<uint64_t>(row)) ^
              static_cast<uint64_t>(i));
      tokens.push_back(row);
      outs.push_back(my_out[Below(random, k_out)]);
      ins.push_back(my_in[Below(Mix(random), k_in)]);
    }
  }
  return {Long(tokens), Long(ins), Long(outs), {}};
}

PairSamples Given(const Sequence& sequence) {
  PairSamples samples = {Long(sequence.lists[0]),
                         Long(sequence.lists[1]),
                         Long(sequence.lists[2]),
                         {}};
  if (sequence.lists.size() > 3) {
    std::vector<float> deltas;
    for (int64_t bits : sequence.lists[3]) {
      const int32_t word = static_cast<int32_t>(bits);
      std::memcpy(&deltas.emplace_back(), &word, sizeof(word));
    }
    samples.delta = at::tensor(deltas, at::kFloat);
  }
  return samples;
}

}  // namespace

PairSamples SamplesOf(const SampleDraw& draw, const Sandwich& sandwich,
                      const Sequence& sequence) {
  PairSamples samples = draw.count > 0 ? Draw(draw, sandwich) : Given(sequence);
  const at::Device device = sandwich.in.indices.device();
  for (at::Tensor* tensor :
       {&samples.token, &samples.in, &samples.out, &samples.delta}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  return samples;
}

at::Tensor Strengths(const ActiveLatents& active, const PairSamples& samples) {
  const at::Tensor mine = active.indices.index_select(0, samples.token);
  const at::Tensor values = active.values.index_select(0, samples.token);
  return (values * mine.eq(samples.in.unsqueeze(1))).sum(1);
}

}  // namespace cupola::analysis
