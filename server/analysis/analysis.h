#ifndef CUPOLA_SERVER_ANALYSIS_ANALYSIS_H_
#define CUPOLA_SERVER_ANALYSIS_ANALYSIS_H_

#include <cstdint>
#include <functional>
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

// A sequence and the row of the forward batch it lies in.
struct Placed {
  const Sequence* sequence = nullptr;
  int64_t row = 0;
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
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ANALYSIS_H_
