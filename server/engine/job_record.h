#ifndef CUPOLA_SERVER_ENGINE_JOB_RECORD_H_
#define CUPOLA_SERVER_ENGINE_JOB_RECORD_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/jobs.h"

namespace cupola::engine {

// What is durable of a job beside its specification and its states.
struct JobRecord {
  JobInfo info;
  int64_t crashes = 0;  // since the last checkpoint that was new
};

// JSON. Text that is not UTF-8 is repaired.
std::string EncodeJobRecord(const JobRecord& record);

// The inverse, as of a job that has done what its checkpoint holds. What a
// field lacks is as in a new job. DATA_LOSS, naming the job, where the text is
// anything else than what EncodeJobRecord gives.
absl::StatusOr<JobRecord> DecodeJobRecord(absl::string_view id,
                                          absl::string_view text);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_RECORD_H_
