#ifndef CUPOLA_SERVER_ANALYSIS_EDITS_H_
#define CUPOLA_SERVER_ANALYSIS_EDITS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/intervention.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

using Dictionaries = std::vector<std::shared_ptr<const dictionary::Dictionary>>;

// An intervention on one row of a pass.
struct RowEdit {
  const Intervention* intervention = nullptr;
  // Where, counted from the row's first position in the pass.
  std::vector<int64_t> positions;
  // A patch's values, and a kAdd's in place of its vector: [positions,
  // ...HookShape].
  at::Tensor source;
  // PlacedIntervention::value_rows, position by position.
  std::vector<int64_t> value_rows = {};
};

// Interventions as the edits of one forward pass whose rows are changed each in
// its own way. What several rows ask of one dictionary is encoded together. A
// row's edits of one point happen in their order. Lives as long as the pass;
// not thread-safe.
class Edits {
 public:
  // rows[i]: the edits of the pass's row i. Everything given outlives this.
  Edits(const Dictionaries& dictionaries,
        const std::vector<std::vector<RowEdit>>& rows);

  // The points the pass must hand over.
  const std::set<model::HookPoint>& points() const { return points_; }

  // model::ForwardRequest::edit.
  absl::Status Apply(const model::HookPoint& point, at::Tensor* value);

 private:
  struct PlacedEdit {
    int64_t row = 0;
    const RowEdit* edit = nullptr;
  };
  void AddSources(const std::vector<PlacedEdit>& edits, at::Tensor* value);
  absl::Status ApplyLatents(int dictionary,
                            const std::vector<PlacedEdit>& edits,
                            at::Tensor* value);

  const Dictionaries& dictionaries_;
  const std::vector<std::vector<RowEdit>>& rows_;
  std::set<model::HookPoint> points_, inputs_;
  // What dictionaries read that write elsewhere: [batch, positions, ...].
  std::map<model::HookPoint, at::Tensor> seen_;
};

// Those of a row's edits that act from position `first` to `last`, with
// positions counted from `first`.
std::vector<RowEdit> EditsWithin(const std::vector<RowEdit>& edits,
                                 int64_t first, int64_t last);

// What latents add to a reconstruction: `features` times the decoder, scaled
// back for a normalised dictionary, without any bias. float32 [rows, d_out]. x:
// the encoder's input, float32 [rows, d_in].
at::Tensor Contribution(const dictionary::Dictionary& dictionary,
                        const dictionary::SparseRows& features,
                        const at::Tensor& x);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_EDITS_H_
