#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/jobs.h"
#include "server/model/status_macros.h"
#include "storage/state_file.h"

// Jobs: one of the states of its shards.

namespace cupola::engine {
namespace {

// Of a shard, so that all of them can be counted.
constexpr int64_t kMaxChunks = int64_t{1} << 40;
constexpr int64_t kMaxTokens = int64_t{1} << 50;

// Sorts the shards. INVALID_ARGUMENT unless they are all those of one job.
absl::Status CheckShards(std::vector<ReceivedShard>* given) {
  std::vector<ReceivedShard>& shards = *given;
  std::sort(shards.begin(), shards.end(), [](const auto& a, const auto& b) {
    return a.shard.index < b.shard.index;
  });
  const JobSpecification& specification = *shards.front().specification;
  const int64_t count = shards.front().shard.count;
  for (size_t i = 0; i < shards.size(); ++i) {
    const ReceivedShard& one = shards[i];
    if (one.specification->kind != specification.kind ||
        one.specification->text != specification.text ||
        one.shard.count != count) {
      return absl::InvalidArgumentError(
          absl::StrCat("shards: ", one.shard.index, " of ", one.shard.count,
                       " is not of the job that ", shards.front().shard.index,
                       " of ", count, " is of; accepted: shards of one job"));
    }
    if (one.shard.index != static_cast<int64_t>(i)) {
      return absl::InvalidArgumentError(
          absl::StrCat("shards: ", i, " of ", count,
                       " is missing, or one comes twice; "
                       "accepted: each of the ",
                       count, " shards once"));
    }
  }
  if (static_cast<int64_t>(shards.size()) != count) {
    return absl::InvalidArgumentError(
        absl::StrCat("shards: ", shards.size(), " of ", count,
                     "; accepted: each of them once"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<JobInfo> Jobs::Merge(std::vector<ReceivedShard> shards,
                                    const JobOptions& options,
                                    const RequestContext& context) {
  if (shards.empty()) {
    return absl::InvalidArgumentError(
        "shards: there are none; accepted: at least one");
  }
  RETURN_IF_ERROR(CheckShards(&shards));
  const JobSpecification& specification = *shards.front().specification;
  const int64_t count = shards.front().shard.count;
  DropResults();  // for the memory
  std::unique_ptr<JobWork> sum;
  int64_t tokens = 0;
  std::vector<int64_t> ends;  // of the shards' chunks
  for (const ReceivedShard& one : shards) {
    RETURN_IF_ERROR(StillWanted(context));
    ASSIGN_OR_RETURN(std::unique_ptr<JobWork> work,
                     Make(specification, context));
    const auto state = storage::StateReader::Open(one.path);
    if (!state.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("shards: the state of ",
                                                     one.shard.index, " of ",
                                                     count, " is damaged"));
    }
    const storage::StateHeader& header = (*state)->header();
    if (header.kind != specification.kind ||
        header.version != work->version() ||
        header.identity != work->identity()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "shards: ", one.shard.index, " of ", count,
          " is of another model, dictionary or version than are here"));
    }
    if (header.chunks < 1 || header.chunks > kMaxChunks) {
      return absl::InvalidArgumentError(absl::StrCat(
          "shards: the state of ", one.shard.index, " of ", count, " has ",
          header.chunks, " chunks; accepted: 1 to ", kMaxChunks));
    }
    if (one.tokens < 0 || one.tokens > kMaxTokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("shards: ", one.shard.index, " of ", count, " has ",
                       one.tokens, " tokens; accepted: 0 to ", kMaxTokens));
    }
    tokens += one.tokens;
    ends.push_back(header.chunks + (ends.empty() ? 0 : ends.back()));
    RETURN_IF_ERROR(work->Restore(state->get()));
    if (sum == nullptr) {
      sum = std::move(work);
    } else {
      RETURN_IF_ERROR(sum->Merge(*work));
    }
  }
  const int64_t chunks = ends.back();
  for (int64_t i = 0; i < count; ++i) {
    if (ends[i] == chunks * (i + 1) / count) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "shards: the state of ", i, " of ", count, " ends with chunk ", ends[i],
        " of ", chunks, "; accepted: with ", chunks * (i + 1) / count));
  }
  Purge();
  Job job;
  {
    absl::MutexLock lock(&mu_);
    const JobInfo* known = nullptr;
    ASSIGN_OR_RETURN(job, NewJob(specification, options, &known));
    if (known != nullptr) return *known;
  }
  JobInfo& info = job.info;
  info.shard = {};
  info.chunks = info.chunks_done = info.chunks_saved = chunks;
  info.tokens = info.tokens_done = tokens;
  info.state = JobState::kDone;
  info.provenance = sum->provenance();
  MarkEnded(&job);
  RETURN_IF_ERROR(checkpoints_.Save(info.id, info.kind, *sum, chunks));
  return Keep(specification, options, std::move(job));
}

}  // namespace cupola::engine
