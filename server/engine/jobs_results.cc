#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/jobs.h"
#include "server/model/status_macros.h"
#include "storage/state_file.h"

// Jobs: their states, as results and as shards.

namespace cupola::engine {
namespace {

constexpr size_t kResultsInMemory = 2;
// Of a shard, so that all of them can be counted.
constexpr int64_t kMaxChunks = int64_t{1} << 40;
constexpr size_t kPieceBytes = size_t{1} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<JobWork>> Jobs::Make(
    const JobSpecification& specification,
    const RequestContext& context) const {
  const auto maker = options_.kinds.find(specification.kind);
  if (maker == options_.kinds.end()) {
    return absl::UnimplementedError(absl::StrCat(
        "this server knows no jobs of kind \"", specification.kind, "\""));
  }
  return maker->second(specification.text, context);
}

absl::StatusOr<Jobs::Restored> Jobs::Restore(
    const std::string& id, const std::string& kind,
    const RequestContext& context) const {
  JobSpecification specification{kind, "", ""};
  ASSIGN_OR_RETURN(specification.text, SpecificationOf(id));
  const auto make = [&] { return Make(specification, context); };
  Restored restored;
  ASSIGN_OR_RETURN(restored.work, make());
  ASSIGN_OR_RETURN(restored.chunks,
                   checkpoints_.Restore(id, kind, make, &restored.work));
  return restored;
}

void Jobs::DropResults() {
  decltype(results_) dropped;  // freed with no lock held
  absl::MutexLock lock(&mu_);
  dropped.swap(results_);
}

absl::StatusOr<Jobs::Restored> Jobs::RestoreInMemory(
    const std::string& id, const std::string& kind,
    const RequestContext& context) {
  absl::StatusOr<Restored> restored = Restore(id, kind, context);
  if (restored.ok() || !absl::IsResourceExhausted(restored.status())) {
    return restored;
  }
  DropResults();
  return Restore(id, kind, context);
}

absl::StatusOr<std::shared_ptr<const JobWork>> Jobs::Result(
    const std::string& id, const std::string& kind,
    const RequestContext& context) {
  int64_t saved = 0;
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Job* job, Find(id));
    saved = job->info.chunks_saved;
    if (job->info.kind != kind) {
      return absl::InvalidArgumentError(absl::StrCat(
          "job \"", id, "\" is of kind ", job->info.kind, ", not ", kind));
    }
    if (!HasEnded(job->info.state)) {
      return absl::FailedPreconditionError(
          absl::StrCat("job \"", id, "\" is ", NameOf(job->info.state),
                       ": wait until it is done, or cancel it"));
    }
    if (job->info.chunks_saved == 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "job \"", id, "\" is ", NameOf(job->info.state), " and has no result",
          job->info.error.empty() ? "" : ": ", job->info.error));
    }
    for (size_t i = 0; i < results_.size(); ++i) {
      if (results_[i].first != id) continue;
      std::rotate(results_.begin() + i, results_.begin() + i + 1,
                  results_.end());
      return results_.back().second;
    }
  }
  ASSIGN_OR_RETURN(Restored restored, RestoreInMemory(id, kind, context));
  if (restored.chunks == 0) {
    return absl::DataLossError(
        absl::StrCat("no checkpoint of job \"", id, "\" is left"));
  }
  if (restored.chunks < saved) {
    RETURN_IF_ERROR(MarkDamaged(id, saved, restored.chunks));
    return absl::DataLossError(absl::StrCat(
        "the state of job \"", id, "\" after ", saved,
        " chunks is damaged; what is left is that after ", restored.chunks,
        ": resume the job to have the rest anew"));
  }
  std::shared_ptr<const JobWork> result = std::move(restored.work);
  absl::MutexLock lock(&mu_);
  // Kept, unless the job has gone on meanwhile or somebody else was quicker.
  const auto found = jobs_.find(id);
  const bool stale = found == jobs_.end() ||
                     !HasEnded(found->second.info.state) ||
                     found->second.info.chunks_saved != restored.chunks;
  const bool held =
      std::any_of(results_.begin(), results_.end(),
                  [&](const auto& other) { return other.first == id; });
  if (!stale && !held) {
    results_.emplace_back(id, result);
    if (results_.size() > kResultsInMemory) results_.erase(results_.begin());
  }
  return result;
}

absl::Status Jobs::MarkDamaged(const std::string& id, int64_t saved,
                               int64_t left) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Job * job, Find(id));
  JobInfo& info = job->info;
  if (!HasEnded(info.state) || info.chunks_saved != saved) {
    return absl::OkStatus();  // it has gone on meanwhile
  }
  if (info.state == JobState::kDone) info.state = JobState::kFailed;
  info.error = absl::StrCat("the state after ", saved, " chunks is damaged");
  info.chunks_done = info.chunks_saved = left;
  MarkEnded(job);
  return Record(job);
}

absl::StatusOr<ExportedShard> Jobs::Export(const std::string& id,
                                           int64_t max_bytes) {
  JobInfo info;
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Job* job, Find(id));
    info = job->info;
  }
  if (info.state != JobState::kDone) {
    return absl::FailedPreconditionError(
        absl::StrCat("job \"", id, "\" is ", NameOf(info.state),
                     "; accepted: one that is done"));
  }
  ExportedShard exported{{info.kind, info.title, ""}, info.shard, {}};
  ASSIGN_OR_RETURN(exported.specification.text, SpecificationOf(id));
  std::ifstream file(checkpoints_.Path(id, info.chunks), std::ios::binary);
  int64_t bytes = 0;
  while (file.good()) {
    std::string piece(kPieceBytes, '\0');
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    piece.resize(file.gcount());
    bytes += static_cast<int64_t>(piece.size());
    if (bytes > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the state of job \"", id, "\" has more than ",
                       max_bytes, " bytes; accepted: ", max_bytes));
    }
    if (!piece.empty()) exported.state.push_back(std::move(piece));
  }
  if (bytes == 0) {
    return absl::DataLossError(
        absl::StrCat("the state of job \"", id, "\" is not there"));
  }
  return exported;
}

absl::StatusOr<std::string> Jobs::NewPart() {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  RETURN_IF_ERROR(HasRoom(1));
  return absl::StrCat(options_.directory, "/received-", parts_++, ".part");
}

absl::StatusOr<JobInfo> Jobs::Merge(std::vector<ReceivedShard> shards,
                                    const JobOptions& options,
                                    const RequestContext& context) {
  if (shards.empty()) {
    return absl::InvalidArgumentError(
        "shards: there are none; accepted: at least one");
  }
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
  DropResults();  // for the memory
  std::unique_ptr<JobWork> sum;
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
  info.state = JobState::kDone;
  info.provenance = sum->provenance();
  MarkEnded(&job);
  std::error_code error;
  const auto bytes =
      std::filesystem::file_size(shards.back().path, error);  // about as many
  RETURN_IF_ERROR(HasRoom(error ? 1 : static_cast<int64_t>(bytes)));
  RETURN_IF_ERROR(checkpoints_.Save(info.id, info.kind, *sum, chunks));
  absl::MutexLock lock(&mu_);
  const std::string saved = info.id;
  // Somebody else may have taken the name meanwhile.
  const JobInfo* known = nullptr;
  const absl::Status still = NewJob(specification, options, &known).status();
  if (!still.ok() || known != nullptr) {
    checkpoints_.Remove(saved);
    if (!still.ok()) return still;
    return *known;
  }
  absl::StatusOr<JobInfo> kept = Keep(specification.text, std::move(job));
  if (!kept.ok()) checkpoints_.Remove(saved);
  return kept;
}

}  // namespace cupola::engine
