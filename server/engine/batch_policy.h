#ifndef CUPOLA_SERVER_ENGINE_BATCH_POLICY_H_
#define CUPOLA_SERVER_ENGINE_BATCH_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cupola::engine {

// What batch formation knows of a queued part.
struct QueuedPart {
  // Parts with equal keys may share a batch: the model's address, for sequences
  // that are no prompts together with the analysis' identity.
  uint64_t group = 0;
  int64_t tokens = 0;
  bool bulk = false;  // a job's: no batch of its group while others wait
};

// The next batch: indices into `queue` (oldest first), ascending. Pure.
//
//  - The oldest part is always in it, whatever its size: nothing starves but a
//    job's parts, which come when there are no others.
//  - Others join, oldest first, if they are of its group and the padded batch
//    (parts x longest) stays within `token_budget` and wastes at most a quarter
//    on padding. A part that does not fit is passed over, so one odd length
//    does not close the batch.
std::vector<size_t> FormBatch(const std::vector<QueuedPart>& queue,
                              int64_t token_budget);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_BATCH_POLICY_H_
