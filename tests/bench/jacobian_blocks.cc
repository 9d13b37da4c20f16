// Jacobian blocks a second at GPT-2's shapes, without a server around them:
// GatheredBlocks beside what PyTorch does with the same kept products,
// gathering rows and contracting them with einsum, 64 tokens at a time as
// published.
//
//   jacobian_blocks [TOKENS] [TURNS]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "c10/core/InferenceMode.h"
#include "server/analysis/gathered_blocks.h"

namespace {

constexpr int64_t kLatents = 49'152, kHidden = 3072, kActive = 32;
constexpr int64_t kPeerBatch = 64;

double SecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  const std::chrono::duration<double> spent =
      std::chrono::steady_clock::now() - start;
  return spent.count();
}

at::Tensor Einsum(const at::Tensor& out_table, const at::Tensor& in_table,
                  const at::Tensor& outs, const at::Tensor& ins,
                  const at::Tensor& gradients) {
  const auto gathered = [](const at::Tensor& table, const at::Tensor& which) {
    return table.index({which});
  };
  return at::einsum("tim,tm,tjm->tij", {gathered(out_table, outs), gradients,
                                        gathered(in_table, ins)});
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t tokens = argc > 1 ? std::atoll(argv[1]) : 2048;
  const int turns = argc > 2 ? std::atoi(argv[2]) : 9;
  const c10::InferenceMode inference;
  at::set_num_threads(2);
  at::manual_seed(0);
  const at::Tensor out_table = at::randn({kLatents, kHidden}) * 0.02;
  const at::Tensor in_table = at::randn({kLatents, kHidden}) * 0.02;
  const at::Tensor gradients = at::rand({tokens, kHidden});
  const auto draw = [tokens] {
    return at::randint(kLatents, {tokens, kActive}, at::kLong);
  };
  const at::Tensor outs = draw(), ins = draw();

  at::Tensor ours, theirs;
  double our_best = std::numeric_limits<double>::infinity();
  double their_best = our_best;
  for (int turn = 0; turn < turns; ++turn) {
    their_best = std::min(
        their_best, SecondsOf([&] {
          std::vector<at::Tensor> parts;
          for (int64_t t = 0; t < tokens; t += kPeerBatch) {
            const int64_t count = std::min(kPeerBatch, tokens - t);
            parts.push_back(
                Einsum(out_table, in_table, outs.narrow(0, t, count),
                       ins.narrow(0, t, count), gradients.narrow(0, t, count)));
          }
          theirs = at::cat(parts);
        }));
    our_best = std::min(our_best, SecondsOf([&] {
                          ours = cupola::analysis::GatheredBlocks(
                              {out_table, in_table}, outs, ins, gradients, {});
                        }));
  }
  const float worst = (ours - theirs).abs().max().item<float>();
  if (worst > 5e-5f * theirs.abs().max().item<float>()) {
    std::fprintf(stderr, "blocks differ by %g\n", worst);
    return 1;
  }
  std::printf(
      "| k x k blocks, gpt2's shapes, best of %d | einsum, per s | cupola, per "
      "s | ratio | aim |\n|---|---|---|---|---|\n"
      "| %lld latents, %lld hidden, k %lld | %.0f | %.0f | %.2f | 2 |\n",
      turns, static_cast<long long>(kLatents), static_cast<long long>(kHidden),
      static_cast<long long>(kActive), tokens / their_best, tokens / our_best,
      their_best / our_best);
  return 0;
}
