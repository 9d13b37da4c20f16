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
};

// What one part of a request looks at: a prompt, or a block of rows that stand
// for the activations at a hook point.
struct Sequence {
  std::vector<int32_t> tokens;     // empty for inputs
  std::vector<int64_t> positions;  // >= 0 and < length: the answer's rows
  storage::Array inputs;  // FLOAT32 [n, d_in]; empty shape for a prompt
  bool has_inputs() const { return !inputs.shape.empty(); }
};

// A sequence and the row of the forward batch it lies in.
struct Placed {
  const Sequence* sequence = nullptr;
  int64_t row = 0;
};

// What the device worker hands to an analysis. `forward` holds what captures()
// asked for; both pointers are null when every sequence brings inputs.
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
