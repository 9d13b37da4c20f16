#ifndef CUPOLA_SERVER_ANALYSIS_LAYERS_RECORD_H_
#define CUPOLA_SERVER_ANALYSIS_LAYERS_RECORD_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/analysis/active_latents.h"
#include "server/analysis/analysis.h"
#include "server/analysis/jacobian.h"
#include "server/analysis/jacobian_rows.h"
#include "server/dictionary/dictionary.h"
#include "server/model/block_vjp.h"

namespace cupola::analysis {

// At which positions the input latents of an output position are.
enum class SourceRule {
  kSame,   // the output's own
  kGiven,  // Sequence::lists[0]; behind the output every derivative is 0
  kAll,    // all up to the output's, ascending
};
std::vector<int64_t> SourcesOf(SourceRule rule, const Sequence& sequence,
                               int64_t position);

struct LayersJacobianOptions {
  model::HookPoint read;     // the input dictionary encodes this
  model::BackwardSpan span;  // from the output's encoder to the input's decoder
  SourceRule sources = SourceRule::kSame;
  LatentMask mask = LatentMask::kSlots;
  bool all_inputs = false;  // this and the next two as JacobianOptions'
  float min_abs = 0;
  int64_t top = 0;
  bool block = true;  // false: the latents alone
};

// One prompt's record of a Jacobian across layers, from gradients of output
// latents by the tensor x where the input dictionary decodes. JacobianAnalysis'
// fields, of which second_order, mlp_output and gradients are empty, and two
// more; a row is an output position and a source: sources in order, of each
// output position in order.
class LayersRecord {
 public:
  // Numbers of the further arrays: INT32 [n].
  enum Field {
    kPosition = JacobianAnalysis::kFields,
    kSourcePosition,
    kFields
  };

  // in: latents at every position that some output's sources name, in order
  // (of kSame: the outputs'); out: at the sequence's positions. decode_scale:
  // what the decoder's rows are multiplied with, [in rows, 1], or undefined.
  // Dictionary, options and sequence outlive it.
  LayersRecord(const dictionary::Dictionary& dictionary,
               const LayersJacobianOptions& options, const Sequence& sequence,
               ActiveLatents in, ActiveLatents out, at::Tensor decode_scale,
               int64_t max_bytes);

  // RESOURCE_EXHAUSTED if what is known to be sent is more than `max_bytes`.
  absl::Status CheckBytes() const;

  // gradients: float32 [rows, k_out, d], of the next rows. Errors of
  // JacobianRowWriter and of `poll`. Exceptions of LibTorch pass through.
  absl::Status Append(const at::Tensor& gradients,
                      const std::function<absl::Status()>& poll);

  std::vector<storage::Array> Finish();

 private:
  at::Tensor Block(const at::Tensor& gradients, const at::Tensor& in) const;
  absl::Status AppendWhole(const at::Tensor& gradients);

  const dictionary::Dictionary& dictionary_;
  const LayersJacobianOptions& options_;
  const ActiveLatents in_, out_;
  const at::Tensor decode_scale_;
  const int64_t max_bytes_;
  std::vector<int64_t> row_in_, row_out_;     // of in_ and of out_
  std::vector<int64_t> positions_, sources_;  // of the rows
  int64_t rows_done_ = 0;
  std::vector<at::Tensor> blocks_;  // [rows, k_out, k_in], on the CPU
  JacobianRowWriter whole_;         // against all input latents
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LAYERS_RECORD_H_
