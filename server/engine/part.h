#ifndef CUPOLA_SERVER_ENGINE_PART_H_
#define CUPOLA_SERVER_ENGINE_PART_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/analysis/analysis.h"
#include "server/engine/requests.h"
#include "storage/digest.h"
#include "storage/result_cache.h"

namespace cupola::engine {

struct PartTiming {
  double queue = 0;    // seconds waited
  double compute = 0;  // seconds of the batch it ran in
};

// The unit of work, of batching and of caching: one sequence of one request and
// what is asked of it.
struct Part {
  std::shared_ptr<const model::Model> model;  // null: none is needed
  std::shared_ptr<const analysis::Analysis> analysis;
  // Parts with equal identity and model ask the same question.
  storage::Digest identity{};
  std::shared_ptr<const analysis::Sequence> sequence;
  RequestContext context;
  // Hears of the answer while it is made; null: nobody. Lives as long as
  // `done`.
  const analysis::TokenSink* sink = nullptr;
  absl::Time enqueued;
  // Called once, from the worker's thread (or the queue's caller on shutdown).
  std::function<void(absl::StatusOr<std::shared_ptr<const storage::Record>>,
                     PartTiming)>
      done;

  // Tokens, or rows for inputs.
  int64_t size() const {
    return sequence->has_inputs()
               ? sequence->inputs.shape[0]
               : static_cast<int64_t>(sequence->tokens.size());
  }
};

// CANCELLED or DEADLINE_EXCEEDED once nobody waits any more, else OK.
inline absl::Status StillWanted(const RequestContext& context) {
  if (context.cancelled->load(std::memory_order_relaxed)) {
    return absl::CancelledError("the client has cancelled the request");
  }
  if (absl::Now() > context.deadline) {
    return absl::DeadlineExceededError("the request's deadline has passed");
  }
  return absl::OkStatus();
}

// As StillWanted, of parts that are computed together: OK while somebody waits.
template <typename Parts>
absl::Status WantedByAny(const Parts& parts) {
  absl::Status unwanted;
  for (const Part& part : parts) {
    unwanted = StillWanted(part.context);
    if (unwanted.ok()) break;
  }
  return unwanted;
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_PART_H_
