#ifndef CUPOLA_SERVER_ANALYSIS_GENERATION_H_
#define CUPOLA_SERVER_ANALYSIS_GENERATION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/generate.h"
#include "server/analysis/patch_sources.h"
#include "server/model/growing_state.h"
#include "server/model/model.h"

namespace cupola::analysis {

// Texts on their way: the work of GenerateAnalysis as steps. A step either runs
// some waiting prompts and chooses their first tokens, or gives every growing
// text one more. Texts that end make room for waiting ones. Samples of one
// prompt share its pass. All given outlives this; not thread-safe.
class Generation final : public Stepwise {
 public:
  static absl::StatusOr<std::unique_ptr<Generation>> Create(
      const GenerateOptions& options, const Dictionaries& dictionaries,
      const Pass& pass, const std::vector<Placed>& sequences);

  absl::StatusOr<bool> Step() override;
  int64_t step_tokens() const override { return step_tokens_; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> TakeRecords()
      override;

 private:
  struct Text {
    size_t sequence = 0;
    int64_t sample = 0;
    int32_t next = 0;  // the token that its row takes in next
    std::vector<int32_t> tokens, top_tokens;
    std::vector<float> logprobs, top_logprobs;
    Finish finish = Finish::kLength;
  };
  // Samples of one prompt that begin together.
  struct Beginning {
    size_t sequence = 0;
    size_t text = 0;  // the first of them
    int64_t samples = 0;
    int64_t length = 0;  // tokens of the prompt's own pass
  };

  Generation(const GenerateOptions& options, const Dictionaries& dictionaries,
             const Pass& pass, const std::vector<Placed>& sequences);
  absl::Status PlaceEdits();
  absl::Status MakeRoom();

  std::vector<Beginning> NextBeginnings() const;
  absl::Status Begin(const std::vector<Beginning>& beginnings);
  absl::Status Grow();
  // Chooses the next token of each of `texts` by its row of logits.
  absl::Status Choose(const std::vector<size_t>& texts,
                      const at::Tensor& logits);
  // One more token of a text; ends it where it ends.
  void Take(size_t text, int32_t token, float logprob,
            const int32_t* top_tokens, const float* top_logprobs);
  void End(size_t text, Finish finish);
  void DropEnded();
  // What changes at the positions from `first` to `last` of a text.
  std::vector<RowEdit> EditsOf(size_t sequence, int64_t first,
                               int64_t last) const;
  absl::StatusOr<model::ForwardResult> Forward(
      model::ForwardRequest request,
      const std::vector<std::vector<RowEdit>>& edits) const;

  const std::vector<int32_t>& prompt(size_t sequence) const {
    return sequences_[sequence].sequence->tokens;
  }

  const GenerateOptions& options_;
  const Dictionaries& dictionaries_;
  const Pass pass_;
  const std::vector<Placed> sequences_;
  // Logits are changed themselves: the prompt's last token then goes the way of
  // the generated ones, whose passes make logits.
  const bool edits_logits_;
  std::vector<std::vector<RowEdit>> prompt_edits_;  // by sequence
  std::vector<uint64_t> keys_;                      // by sequence
  std::vector<bool> given_up_;                      // by sequence
  std::vector<Text> texts_;
  size_t next_text_ = 0;  // the first that has not begun
  std::unique_ptr<model::GrowingState> state_;
  std::vector<size_t> rows_;  // the texts of the state's rows
  std::vector<bool> ended_;   // by text
  int64_t step_tokens_ = 0;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_GENERATION_H_
