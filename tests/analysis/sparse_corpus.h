#ifndef CUPOLA_TESTS_ANALYSIS_SPARSE_CORPUS_H_
#define CUPOLA_TESTS_ANALYSIS_SPARSE_CORPUS_H_

#include <cstdint>
#include <random>
#include <vector>

#include "server/analysis/sparse_view.h"

namespace cupola::analysis {

// A made-up corpus of active latents, for tests of accumulators.
struct SparseCorpus {
  int64_t latents = 0;
  std::vector<int64_t> indptr{0};
  std::vector<int32_t> indices;
  std::vector<float> values;
  std::vector<int64_t> row;
  std::vector<int32_t> position;

  int64_t tokens() const { return static_cast<int64_t>(indptr.size()) - 1; }

  // Latents ascend.
  void AddToken(int64_t of_row, int32_t at, const std::vector<int32_t>& which,
                const std::vector<float>& how_much) {
    indices.insert(indices.end(), which.begin(), which.end());
    values.insert(values.end(), how_much.begin(), how_much.end());
    indptr.push_back(static_cast<int64_t>(indices.size()));
    row.push_back(of_row);
    position.push_back(at);
  }

  // Tokens first .. first + count - 1, whose indptr begins at 0: `storage`
  // holds it.
  SparseView View(int64_t first, int64_t count,
                  std::vector<int64_t>* storage) const {
    storage->clear();
    for (int64_t t = first; t <= first + count; ++t) {
      storage->push_back(indptr[t] - indptr[first]);
    }
    return {count, latents, storage->data(), indices.data() + indptr[first],
            values.data() + indptr[first]};
  }
  TokenPlaces Places(int64_t first) const {
    return {row.data() + first, position.data() + first};
  }

  // Dense, for naive sums.
  float At(int64_t token, int32_t latent) const {
    for (int64_t i = indptr[token]; i < indptr[token + 1]; ++i) {
      if (indices[i] == latent) return values[i];
    }
    return 0;
  }
};

// Latents fire with density between `sparse` and 0.5, of few different values,
// so that there are ties; the last latent never does. Rows of 8 tokens.
inline SparseCorpus RandomCorpus(int64_t tokens, int64_t latents, int seed,
                                 double sparse = 0.02) {
  SparseCorpus corpus;
  corpus.latents = latents;
  std::mt19937 random(seed);
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<int32_t> which;
    std::vector<float> how_much;
    for (int32_t latent = 0; latent + 1 < latents; ++latent) {
      const double density =
          sparse + (0.5 - sparse) * (latent % 7 == 0 ? 1.0 : 0.1);
      if (std::uniform_real_distribution<>(0, 1)(random) > density) continue;
      which.push_back(latent);
      how_much.push_back(0.01f * static_cast<float>(1 + random() % 1000));
    }
    corpus.AddToken(t / 8, static_cast<int32_t>(t % 8), which, how_much);
  }
  return corpus;
}

}  // namespace cupola::analysis

#endif  // CUPOLA_TESTS_ANALYSIS_SPARSE_CORPUS_H_
