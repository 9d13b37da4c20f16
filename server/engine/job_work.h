#ifndef CUPOLA_SERVER_ENGINE_JOB_WORK_H_
#define CUPOLA_SERVER_ENGINE_JOB_WORK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/job_info.h"
#include "server/engine/requests.h"
#include "storage/digest.h"
#include "storage/state_file.h"

namespace cupola::engine {

// The work of one job: chunks numbered from 0, each added to a state in that
// order, so that a resumed run equals a straight one. Made anew, of its
// specification, whenever the job begins, goes on, or is asked for its result.
// Used by one thread at a time, but what reads the result is const and may run
// on many.
class JobWork {
 public:
  virtual ~JobWork() = default;
  // Of the bytes that Save writes.
  virtual uint32_t version() const = 0;
  // Everything that can change the result: a state of another identity is not
  // gone on with.
  virtual storage::Digest identity() const = 0;
  virtual JobProvenance provenance() const = 0;

  // Opens what the chunks are made of: before the next three, and not for the
  // result alone, which so outlives a dataset.
  virtual absl::Status Begin() = 0;
  virtual int64_t chunks() const = 0;
  virtual int64_t tokens(int64_t chunk) const = 0;
  // Computes a chunk and adds it to the state, or leaves the state as it was.
  virtual absl::Status RunChunk(int64_t chunk,
                                const RequestContext& context) = 0;

  virtual absl::Status Save(storage::StateWriter* state) const = 0;
  // RESOURCE_EXHAUSTED: there is no memory for it; any other error: damage.
  virtual absl::Status Restore(storage::StateReader* state) = 0;
  // Adds the state of work of the same kind, specification and identity, whose
  // chunks come behind this one's (analysis/accumulator.h).
  virtual absl::Status Merge(const JobWork& later) = 0;
};

// A kind of job makes its work of its specification; it may wait for models to
// load.
using JobMaker = std::function<absl::StatusOr<std::unique_ptr<JobWork>>(
    const std::string& specification, const RequestContext& context)>;

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_WORK_H_
