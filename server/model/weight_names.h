#ifndef CUPOLA_SERVER_MODEL_WEIGHT_NAMES_H_
#define CUPOLA_SERVER_MODEL_WEIGHT_NAMES_H_

#include <string>
#include <vector>

namespace cupola::model {

// How a checkpoint stores a matrix that maps `in` to `out`.
enum class MatrixLayout {
  kOutIn,  // torch.nn.Linear: [out, in]
  kInOut,  // GPT-2's Conv1D: [in, out]
};

// How it stores the query, key and value matrices.
enum class QkvLayout {
  kSeparate,  // three matrices
  kBlocks,    // one, its outputs in the order q | k | v (GPT-2)
  kPerHead,   // one, its outputs in the order (head, q | k | v, d_head) (NeoX)
};

// Where a family's checkpoints keep each weight. Names of modules: ".weight"
// and
// ".bias" follow. Null: the family has no such module.
struct WeightNames {
  // Outer prefixes, tried in this order: checkpoints come with and without.
  std::vector<std::string> prefixes;
  const char* embedding;
  const char* positions = nullptr;
  const char* layers;  // the layer's number and a dot follow
  // Below a layer.
  const char* ln1;
  const char* ln1_post = nullptr;
  const char* ln2 = nullptr;
  const char* ln2_post = nullptr;
  MatrixLayout matrices = MatrixLayout::kOutIn;
  QkvLayout qkv_layout = QkvLayout::kSeparate;
  const char* qkv = nullptr;  // unless separate
  const char *q = nullptr, *k = nullptr, *v = nullptr;
  const char *q_norm = nullptr, *k_norm = nullptr;
  const char* out;
  const char* gate = nullptr;
  const char* mlp_in;
  const char* mlp_out;
  // Behind the layers.
  const char* final_norm;
  // Full names, without the prefix; tried in this order.
  std::vector<std::string> unembedding;
};

// REQUIRES: a family of ModelFamilies().
const WeightNames& WeightNamesOf(const std::string& family);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_WEIGHT_NAMES_H_
