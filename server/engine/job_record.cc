#include "server/engine/job_record.h"

#include "absl/strings/str_cat.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using model::Json;

absl::StatusOr<JobRecord> Decode(absl::string_view id, absl::string_view text) {
  ASSIGN_OR_RETURN(const Json json, model::ParseJson(text, "record"));
  JobRecord record;
  JobInfo& info = record.info;
  info.id = std::string(id);
  ASSIGN_OR_RETURN(info.kind, model::StringOr(json, "kind", ""));
  ASSIGN_OR_RETURN(info.title, model::StringOr(json, "title", ""));
  ASSIGN_OR_RETURN(const int64_t state, model::RequiredInt(json, "state"));
  if (state < static_cast<int64_t>(JobState::kQueued) ||
      state > static_cast<int64_t>(JobState::kCancelled)) {
    return absl::InvalidArgumentError(absl::StrCat("state is ", state));
  }
  info.state = static_cast<JobState>(state);
  ASSIGN_OR_RETURN(info.chunks, model::IntOr(json, "chunks", 0));
  ASSIGN_OR_RETURN(info.tokens, model::IntOr(json, "tokens", 0));
  ASSIGN_OR_RETURN(info.chunks_saved, model::IntOr(json, "chunks_saved", 0));
  info.chunks_done = info.chunks_saved;
  ASSIGN_OR_RETURN(info.tokens_done, model::IntOr(json, "tokens_saved", 0));
  ASSIGN_OR_RETURN(info.seconds, model::DoubleOr(json, "seconds", 0));
  ASSIGN_OR_RETURN(info.error, model::StringOr(json, "error", ""));
  ASSIGN_OR_RETURN(const int64_t submitted, model::IntOr(json, "submitted", 0));
  info.submitted = absl::FromUnixMicros(submitted);
  ASSIGN_OR_RETURN(record.crashes, model::IntOr(json, "crashes", 0));
  return record;
}

}  // namespace

std::string EncodeJobRecord(const JobRecord& record) {
  const JobInfo& info = record.info;
  const Json json = {{"kind", info.kind},
                     {"title", info.title},
                     {"state", static_cast<int>(info.state)},
                     {"chunks", info.chunks},
                     {"tokens", info.tokens},
                     {"chunks_saved", info.chunks_saved},
                     {"tokens_saved", info.tokens_done},
                     {"seconds", info.seconds},
                     {"error", info.error},
                     {"submitted", absl::ToUnixMicros(info.submitted)},
                     {"crashes", record.crashes}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<JobRecord> DecodeJobRecord(absl::string_view id,
                                          absl::string_view text) {
  absl::StatusOr<JobRecord> record = Decode(id, text);
  if (record.ok()) return record;
  return absl::DataLossError(absl::StrCat(
      "the record of job ", id, " is damaged: ", record.status().message()));
}

}  // namespace cupola::engine
