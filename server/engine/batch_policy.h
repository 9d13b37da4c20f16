#ifndef CUPOLA_SERVER_ENGINE_BATCH_POLICY_H_
#define CUPOLA_SERVER_ENGINE_BATCH_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace cupola::engine {

// What batch formation knows of a queued part.
struct QueuedPart {
  // Parts with equal keys may share a batch: the model's address, for sequences
  // that are no prompts together with the analysis' identity.
  uint64_t group = 0;
  int64_t tokens = 0;
  bool bulk = false;    // a job's: no batch of its group while others wait
  uint64_t client = 0;  // who has sent it
  // Parts of one group with equal rows are about the same tokens, which go
  // through the model once; 0: with nobody.
  uint64_t row = 0;
  double seconds = 0;  // what it is estimated to take
};

// What a batch may hold.
struct BatchBudget {
  int64_t tokens = 0;  // padded
  // Whatever comes first may exceed it.
  double seconds = std::numeric_limits<double>::infinity();
};

// The next batch: indices into `queue` (oldest first), ascending. Pure.
//
//  - It begins with the oldest part of the client who has been `given` the
//    least (seconds), whatever its size: nothing starves but a job's parts,
//    which come when there are no others.
//  - Others join if they are of its group and the padded batch (rows x longest)
//    stays within the budget and wastes at most a quarter on padding; each
//    time the client who has had the least, this batch included, is asked for
//    his oldest part. A part that does not fit is passed over, so one odd
//    length does not close the batch.
std::vector<size_t> FormBatch(const std::vector<QueuedPart>& queue,
                              const BatchBudget& budget,
                              const std::function<double(uint64_t)>& given);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_BATCH_POLICY_H_
