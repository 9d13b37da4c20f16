#ifndef CUPOLA_SERVER_ENGINE_STEPPED_BATCH_H_
#define CUPOLA_SERVER_ENGINE_STEPPED_BATCH_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/engine/observer.h"
#include "server/engine/part.h"

namespace cupola::engine {

// A batch whose analysis works in steps (a generation), on its way on one
// device: its worker gives it a step now and then, between other batches. All
// parts ask one question. Not thread-safe.
class SteppedBatch {
 public:
  // `poll`: not OK once the batch shall end, whoever waits for it; it may spend
  // time on others, and `others` tells how much it has spent on them so far.
  // All outlive this.
  SteppedBatch(std::vector<Part> parts, std::function<absl::Status()> poll,
               std::function<absl::Duration()> others, std::string device,
               Observer* observer);

  // One step (the first also starts the work). True when it was the last: every
  // part has its record or its error then.
  bool Step();

  const std::vector<Part>& parts() const { return parts_; }
  double seconds() const { return seconds_; }  // of all steps so far
  bool succeeded() const { return succeeded_; }

 private:
  absl::StatusOr<bool> TryStep();
  absl::Status Start();
  void Finish(absl::StatusOr<std::vector<storage::Record>> records);

  std::vector<Part> parts_;
  const std::function<absl::Status()> poll_;
  const std::function<absl::Duration()> others_;
  const std::string device_;
  Observer* const observer_;
  const absl::Time start_;
  double seconds_ = 0;
  bool succeeded_ = false;  // every part has its record
  std::unique_ptr<analysis::Stepwise> work_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_STEPPED_BATCH_H_
