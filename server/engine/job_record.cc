#include "server/engine/job_record.h"

#include "absl/strings/str_cat.h"
#include "server/engine/dataset_records.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using model::Json;

// 0: for good.
constexpr int64_t kForGood = 0;

int64_t ToMicros(absl::Time time) {
  return time < absl::InfiniteFuture() ? absl::ToUnixMicros(time) : kForGood;
}

}  // namespace

Json ToJson(const JobProvenance& provenance) {
  Json dictionaries = Json::array();
  for (const auto& [name, digest] : provenance.dictionaries) {
    dictionaries.push_back({name, storage::ToHex(digest)});
  }
  return {{"model", provenance.model},
          {"model_digest", storage::ToHex(provenance.model_digest)},
          {"dictionaries", std::move(dictionaries)},
          {"dataset", provenance.dataset},
          {"dataset_digest", storage::ToHex(provenance.dataset_digest)},
          {"rows_digest", storage::ToHex(provenance.rows_digest)},
          {"store", storage::ToHex(provenance.store)},
          {"parameters", provenance.parameters}};
}

JobProvenance ProvenanceFromJson(const Json& json) {
  const auto digest = [&json](const char* key) {
    return DigestFromHex(json.at(key).get<std::string>());
  };
  JobProvenance provenance;
  provenance.model = json.at("model");
  provenance.model_digest = digest("model_digest");
  for (const Json& one : json.at("dictionaries")) {
    provenance.dictionaries.emplace_back(
        one.at(0), DigestFromHex(one.at(1).get<std::string>()));
  }
  provenance.dataset = json.at("dataset");
  provenance.dataset_digest = digest("dataset_digest");
  provenance.rows_digest = digest("rows_digest");
  if (json.contains("store")) provenance.store = digest("store");
  provenance.parameters = json.at("parameters");
  return provenance;
}

bool HasEnded(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning;
}

const char* NameOf(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kDone:
      return "done";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  return "";
}

std::string EncodeJobRecord(const JobRecord& job) {
  const JobInfo& info = job.info;
  const bool kept = job.keep == absl::InfiniteDuration();
  const Json json = {
      {"kind", info.kind},
      {"name", info.name},
      {"title", info.title},
      {"owner", info.owner},
      {"state", static_cast<int>(info.state)},
      {"shard", {info.shard.index, info.shard.count}},
      {"first_chunk", info.first_chunk},
      {"chunks", info.chunks},
      {"tokens", info.tokens},
      {"chunks_saved", info.chunks_saved},
      {"tokens_saved", info.tokens_done},
      {"seconds", info.seconds},
      {"error", info.error},
      {"submitted", absl::ToUnixMicros(info.submitted)},
      {"expires", ToMicros(info.expires)},
      {"keep_seconds", kept ? kForGood : absl::ToInt64Seconds(job.keep)},
      {"provenance", ToJson(info.provenance)},
      {"request_id", job.request_id},
      {"specification_bytes", job.specification_bytes},
      {"crashes", job.crashes}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<JobRecord> DecodeJobRecord(absl::string_view id,
                                          absl::string_view text) {
  const auto damaged = [id](absl::string_view why) {
    return absl::DataLossError(
        absl::StrCat("the record of job \"", id, "\" is damaged: ", why));
  };
  const absl::StatusOr<Json> parsed = model::ParseJson(text, "it");
  if (!parsed.ok()) return damaged(parsed.status().message());
  const Json& json = *parsed;
  JobRecord job;
  JobInfo& info = job.info;
  try {
    info.kind = json.value("kind", "");
    info.name = json.value("name", "");
    info.title = json.value("title", "");
    info.owner = json.value("owner", "");
    const int state = json.value("state", 0);
    if (state < static_cast<int>(JobState::kQueued) ||
        state > static_cast<int>(JobState::kCancelled)) {
      return damaged("it has no state");
    }
    info.id = std::string(id);
    info.state = static_cast<JobState>(state);
    if (json.contains("shard")) {
      info.shard = {json.at("shard").at(0), json.at("shard").at(1)};
    }
    info.first_chunk = json.value("first_chunk", int64_t{0});
    info.chunks = json.value("chunks", int64_t{0});
    info.tokens = json.value("tokens", int64_t{0});
    info.chunks_saved = json.value("chunks_saved", int64_t{0});
    info.chunks_done = info.chunks_saved;
    info.tokens_done = json.value("tokens_saved", int64_t{0});
    info.seconds = json.value("seconds", 0.0);
    info.error = json.value("error", "");
    info.submitted = absl::FromUnixMicros(json.value("submitted", int64_t{0}));
    const int64_t expires = json.value("expires", kForGood);
    if (expires != kForGood) info.expires = absl::FromUnixMicros(expires);
    const int64_t keep = json.value("keep_seconds", kForGood);
    if (keep != kForGood) job.keep = absl::Seconds(keep);
    if (json.contains("provenance")) {
      info.provenance = ProvenanceFromJson(json.at("provenance"));
    }
    job.request_id = json.value("request_id", "");
    job.specification_bytes = json.value("specification_bytes", int64_t{0});
    job.crashes = json.value("crashes", int64_t{0});
  } catch (const Json::exception& error) {
    return damaged(error.what());
  }
  return job;
}

}  // namespace cupola::engine
