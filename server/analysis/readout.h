#ifndef CUPOLA_SERVER_ANALYSIS_READOUT_H_
#define CUPOLA_SERVER_ANALYSIS_READOUT_H_

#include <cstdint>
#include <functional>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/model/model.h"

namespace cupola::analysis {

// What is read from the model's output at some positions.
struct ReadoutRequest {
  // int64 [rows, answers], on the CPU: token ids; -1: none, which reads NaN and
  // rank -1.
  at::Tensor answers;
  int64_t top = 0;            // logits, the largest; the lowest token wins ties
  bool distribution = false;  // the log-probabilities of all tokens
};

// All on the CPU.
struct Readout {
  at::Tensor logprob;  // float32 [rows, answers]: log_softmax(logits)[answer]
  at::Tensor rank;     // int32 [rows, answers]: how many logits are greater
  at::Tensor top_tokens;  // int32 [rows, top]
  at::Tensor top_logits;  // float32 [rows, top]
  // float32 [rows, d_vocab]: log_softmax(logits); undefined unless asked for.
  at::Tensor distribution = {};
};

// rows: values of unembed.hook_in, [rows, d_model]. Unembeds and reads a few
// rows at a time, so that their logits never exist as a whole; `poll` is asked
// in between.
absl::StatusOr<Readout> ReadRows(const model::Model& model,
                                 const at::Tensor& rows,
                                 const ReadoutRequest& request,
                                 const std::function<absl::Status()>& poll);

// The same from logits [rows, d_vocab].
Readout ReadLogits(const at::Tensor& logits, const ReadoutRequest& request);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_READOUT_H_
