#ifndef CUPOLA_SERVER_MODEL_PROCESSING_H_
#define CUPOLA_SERVER_MODEL_PROCESSING_H_

#include "server/model/checkpoint.h"
#include "server/model/model_config.h"

namespace cupola::model {

// "Folded" processing, TransformerLens' default (fold_ln,
// center_writing_weights, center_unembed, fold_value_biases, in this order), on
// float32 weights. A norm whose gain and bias were folded away is left
// undefined. None of it changes a log-probability; residuals and raw logits do
// change.

// Folds ln1 into q, k and v; centres what the sublayer writes; moves the value
// bias, whose effect on a row of attention weights that sum to 1 is constant,
// into the output bias.
void FoldAttention(const ModelConfig& config, AttentionTensors* tensors);

// Folds ln2 into the MLP's inputs and centres what it writes.
void FoldMlp(const ModelConfig& config, MlpTensors* tensors);

// Folds the final norm into an unembedding of its own (not a tied one) and
// centres it over the vocabulary unless the logits have a softcap, which is not
// shift-invariant.
void FoldUnembedding(const ModelConfig& config, NormWeights* final_norm,
                     Affine* unembedding);

// Whether folding centres what is written to the residual stream: LayerNorm
// models only, whose norms do not see a row's mean.
bool FoldingCentersWriters(const ModelConfig& config);
// Whether folding centres the unembedding.
bool FoldingCentersLogits(const ModelConfig& config);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_PROCESSING_H_
