#ifndef CUPOLA_SERVER_ENGINE_JOB_RECORD_H_
#define CUPOLA_SERVER_ENGINE_JOB_RECORD_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/engine/job_info.h"
#include "server/model/json.h"

// What is written of a job, as JSON. Records of earlier versions, which lack
// some fields, are read as well.

namespace cupola::engine {

struct JobRecord {
  JobInfo info;
  std::string request_id;  // the submission's; may be empty
  int64_t specification_bytes = 0;  // what lies beside the record
  int64_t crashes = 0;     // since the last checkpoint that was new
  absl::Duration keep = absl::InfiniteDuration();  // once it has ended
};

model::Json ToJson(const JobProvenance& provenance);
// Throws Json::exception.
JobProvenance ProvenanceFromJson(const model::Json& json);

std::string EncodeJobRecord(const JobRecord& record);
// DATA_LOSS, naming the job, where it is not what was written.
absl::StatusOr<JobRecord> DecodeJobRecord(absl::string_view id,
                                          absl::string_view text);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_RECORD_H_
