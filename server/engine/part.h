#ifndef CUPOLA_SERVER_ENGINE_PART_H_
#define CUPOLA_SERVER_ENGINE_PART_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/analysis/analysis.h"
#include "server/engine/flight.h"
#include "storage/digest.h"

namespace cupola::engine {

// The unit of work, of batching and of caching: one sequence of one request and
// what is asked of it.
struct Part {
  std::shared_ptr<const model::Model> model;  // null: none is needed
  std::shared_ptr<const analysis::Analysis> analysis;
  // Parts with equal identity and model ask the same question.
  storage::Digest identity{};
  std::shared_ptr<const analysis::Sequence> sequence;
  // Who waits for the record; landed once, from the worker's thread (or the
  // queue's caller on shutdown).
  std::shared_ptr<Flight> flight;
  // Of the request that the part is of (see RequestContext).
  uint64_t client = 0;
  analysis::Operation operation = analysis::Operation::kFeatures;
  double flops = 0, seconds = 0;  // what it is estimated to take
  uint64_t group = 0, row = 0;    // the queue's: see QueuedPart
  bool bulk = false;
  // Hears of the answer while it is made; null: nobody. Lives as long as
  // `flight` has passengers.
  const analysis::TokenSink* sink = nullptr;
  absl::Time enqueued;

  // Tokens, or rows for inputs.
  int64_t size() const {
    return sequence->has_inputs()
               ? sequence->inputs.shape[0]
               : static_cast<int64_t>(sequence->tokens.size());
  }
};

// Of parts that are computed together: OK while somebody waits for any of them.
template <typename Parts>
absl::Status WantedByAny(const Parts& parts) {
  absl::Status unwanted;
  for (const Part& part : parts) {
    unwanted = part.flight->StillWanted();
    if (unwanted.ok()) break;
  }
  return unwanted;
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_PART_H_
