#ifndef CUPOLA_SERVER_ANALYSIS_ANALYSIS_H_
#define CUPOLA_SERVER_ANALYSIS_ANALYSIS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/hook_point.h"
#include "storage/array.h"
#include "storage/digest.h"

namespace cupola::model {
class Model;
struct ForwardResult;
}  // namespace cupola::model

namespace cupola::analysis {

// Names an analysis in stored keys: never renumber. A change of meaning raises
// the version inside the analysis' identity instead.
enum class Operation : uint8_t {
  kActivations = 1,
  kFeatures = 2,
  kReconstruct = 3,
  kWeight = 4,
  kLatentWeights = 5,
  kLogitLens = 6,
  kAttribution = 7,
  kQuality = 8,
  kRun = 9,
  kAblate = 10,
  kGenerate = 11,
  kMeanActivation = 12,
  kJacobian = 13,
  kDirectionAblation = 14,
  kSweep = 15,
};

// What one part of a request looks at: a prompt, a block of rows that stand for
// the activations at a hook point, or nothing but weights (neither tokens nor
// inputs).
struct Sequence {
  std::vector<int32_t> tokens;     // empty for inputs
  std::vector<int64_t> positions;  // >= 0 and < length: the answer's rows
  storage::Array inputs;  // FLOAT32 [n, d_in]; empty shape for a prompt
  // What else is asked of this sequence alone: the analysis says what it is.
  std::vector<std::vector<int64_t>> lists;
  bool has_inputs() const { return !inputs.shape.empty(); }
  bool is_empty() const { return tokens.empty() && !has_inputs(); }
};

// A token that was generated, told while its text grows.
struct GeneratedToken {
  int64_t sample = 0;  // which of the prompt's texts
  int32_t token = 0;
  float logprob = 0;
  std::vector<int32_t> top_tokens;
  std::vector<float> top_logprobs;
};
// Called on the worker's thread with every token: quick, and never waiting for
// whoever reads. Not OK: nobody wants more of the sequence.
using TokenSink = std::function<absl::Status(const GeneratedToken&)>;

// A sequence and the row of the forward batch it lies in.
struct Placed {
  const Sequence* sequence = nullptr;
  int64_t row = 0;
  const TokenSink* sink = nullptr;  // null: nobody listens
};

// What the device worker hands to an analysis. `model` is null where the
// question needs none. `forward` holds what captures() asked for; null where
// nothing of the batch asks for any.
struct Pass {
  const model::Model* model = nullptr;
  const model::ForwardResult* forward = nullptr;
  // Non-OK once nobody waits for the answer: polled between chunks of work.
  std::function<absl::Status()> poll;
};

// The work of an analysis in many steps, between which the worker may serve
// others.
class Stepwise {
 public:
  virtual ~Stepwise() = default;
  // One step; whether it was the last.
  virtual absl::StatusOr<bool> Step() = 0;
  // Tokens that the last step computed.
  virtual int64_t step_tokens() const = 0;
  // Analysis::Run's answer, after the last step. A record without arrays: its
  // sequence was given up, because its sink wanted no more.
  virtual absl::StatusOr<std::vector<std::vector<storage::Array>>>
  TakeRecords() = 0;
};

// One question, asked of any number of sequences in one go. The device worker
// merges sequences of different requests that ask the same question (equal
// identity), so an answer must depend on its own sequence alone. Immutable; Run
// is called on the worker's thread.
class Analysis {
 public:
  virtual ~Analysis() = default;

  // The hook points whose tensors Run reads.
  virtual std::set<model::HookPoint> captures() const = 0;

  // One record per sequence, in order. An analysis documents its arrays.
  virtual absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const = 0;

  // Whether the work is done in steps: Start then makes them, and Run need not
  // be called. Everything given to Start, and this, outlives what it returns.
  virtual bool stepwise() const { return false; }
  virtual absl::StatusOr<std::unique_ptr<Stepwise>> Start(
      const Pass&, const std::vector<Placed>&) const {
    return absl::UnimplementedError("not an analysis of steps");
  }
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ANALYSIS_H_
