#ifndef CUPOLA_SERVER_ANALYSIS_GENERATE_H_
#define CUPOLA_SERVER_ANALYSIS_GENERATE_H_

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/edits.h"
#include "server/analysis/intervention.h"
#include "server/analysis/sampling.h"

namespace cupola::analysis {

// Why a text ended. Stored in records: never renumber.
enum class Finish : int32_t {
  kLength = 1,     // it has max_new_tokens
  kStop = 2,       // its last token is a stop token
  kNoNumbers = 3,  // no logit was a number: an intervention can do that
};

// Where an intervention acts on what is generated, besides the positions of the
// prompt that the sequence says. Generated position 0 is that of the first
// generated token, which the prompt's last position predicts.
struct GeneratedScope {
  bool everywhere = false;
  std::vector<int64_t> positions;  // else these; ascending
};

struct GenerateOptions {
  InterventionSet interventions;
  std::vector<GeneratedScope> generated;  // by intervention
  Sampling sampling;
  uint64_t seed = 0;
  int64_t samples = 1;  // texts per prompt
  int64_t max_new_tokens = 0;
  std::vector<int32_t> stop;  // ascending, unique
  int64_t top = 0;            // most probable tokens told beside each
};

// Continues prompts token by token. A text is a function of its prompt and of
// these options alone, whatever else is generated beside it: its randomness is
// counted off (seed, prompt, sample, step). Only where two tokens are as good
// as equal can the last bits of a pass, which differ with its batch, decide.
//
// Log-probabilities are those of the model under its interventions, before
// temperature, top_k and top_p.
//
// Sequence::lists: the interventions' places in the prompt (placed_lists.h).
//
// Record: lengths INT32 [samples] and why they ended INT32 [samples] (Finish);
//   then of all samples, one after the other, tokens INT32 and log-probs
//   FLOAT32 [tokens], and the most probable tokens INT32 and their log-probs
//   FLOAT32 [tokens, top].
// A sequence whose sink returns an error gets an empty record: given up.
class GenerateAnalysis : public Analysis {
 public:
  GenerateAnalysis(GenerateOptions options, Dictionaries dictionaries);
  static storage::Digest Identity(
      const GenerateOptions& options,
      const std::vector<storage::Digest>& dictionaries);

  std::set<model::HookPoint> captures() const override { return {}; }
  bool stepwise() const override { return true; }
  absl::StatusOr<std::unique_ptr<Stepwise>> Start(
      const Pass& pass, const std::vector<Placed>& sequences) const override;
  // All steps at once.
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const GenerateOptions options_;
  const Dictionaries dictionaries_;
};

// Bytes of the rows that generate at a time, at most; a row alone may take
// more, up to kMaxRowBytes (RESOURCE_EXHAUSTED beyond, with both numbers).
inline constexpr int64_t kGrowingBytes = int64_t{1} << 30;
inline constexpr int64_t kMaxRowBytes = int64_t{4} << 30;

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_GENERATE_H_
