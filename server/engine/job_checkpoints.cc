#include "server/engine/job_checkpoints.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "storage/state_file.h"

namespace cupola::engine {
namespace {

namespace fs = std::filesystem;
constexpr char kEnd[] = ".state", kPart[] = ".part";
constexpr size_t kKept = 2;

}  // namespace

std::string JobCheckpoints::Path(const std::string& id, int64_t chunks) const {
  return absl::StrCat(directory_, "/", id, ".", chunks, kEnd);
}

std::vector<int64_t> JobCheckpoints::List(const std::string& id) const {
  std::vector<int64_t> all;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    const std::string name = entry.path().filename().string();
    const size_t begin = id.size() + 1, size = begin + sizeof(kEnd) - 1;
    int64_t chunks = 0;
    if (name.size() > size && name.starts_with(absl::StrCat(id, ".")) &&
        name.ends_with(kEnd) &&
        absl::SimpleAtoi(name.substr(begin, name.size() - size), &chunks)) {
      all.push_back(chunks);
    }
  }
  std::sort(all.begin(), all.end());
  return all;
}

void JobCheckpoints::Open() {
  std::error_code error;
  std::vector<fs::path> states, unfinished;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    const fs::path kind = entry.path().extension();
    if (kind == kPart) unfinished.push_back(entry.path());
    if (kind == kEnd) states.push_back(entry.path());
  }
  for (const fs::path& path : unfinished) fs::remove(path, error);
  for (const fs::path& path : states) {
    const auto size = fs::file_size(path, error);
    if (!error) Count(path.string(), static_cast<int64_t>(size));
  }
}

void JobCheckpoints::Count(const std::string& path, int64_t bytes) {
  absl::MutexLock lock(&mu_);
  const auto known = sizes_.find(path);
  if (known != sizes_.end()) {
    quota_->Add(-known->second);
    sizes_.erase(known);
  }
  if (bytes < 0) return;
  sizes_[path] = bytes;
  quota_->Add(bytes);
}

absl::Status JobCheckpoints::Save(const std::string& id,
                                  const std::string& kind, const JobWork& work,
                                  int64_t chunks) {
  const std::string path = Path(id, chunks);
  ByteQuota::Share share(quota_);
  ASSIGN_OR_RETURN(const std::unique_ptr<storage::StateWriter> state,
                   storage::StateWriter::Create(
                       path, {kind, work.version(), work.identity(), chunks},
                       [&share](int64_t more) { return share.Grow(more); }));
  RETURN_IF_ERROR(work.Save(state.get()));
  RETURN_IF_ERROR(state->Commit());
  Count(path, share.bytes());
  const std::vector<int64_t> all = List(id);
  std::error_code error;
  for (size_t i = 0; i + kKept < all.size(); ++i) {
    const std::string old = Path(id, all[i]);
    if (fs::remove(old, error)) Count(old, -1);
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> JobCheckpoints::Restore(
    const std::string& id, const std::string& kind,
    const std::function<absl::StatusOr<std::unique_ptr<JobWork>>()>& make,
    std::unique_ptr<JobWork>* work) const {
  const std::vector<int64_t> all = List(id);
  absl::Status damage;
  for (auto chunks = all.rbegin(); chunks != all.rend(); ++chunks) {
    const auto state = storage::StateReader::Open(Path(id, *chunks));
    if (!state.ok()) {
      damage = state.status();
      continue;
    }
    const storage::StateHeader& header = (*state)->header();
    if (header.identity != (*work)->identity() || header.kind != kind ||
        header.version != (*work)->version()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the state of job \"", id,
          "\" is of another model, dictionary or version than are here now"));
    }
    damage = (*work)->Restore(state->get());
    if (damage.ok()) return *chunks;
    if (absl::IsResourceExhausted(damage)) return damage;  // no damage at all
    ASSIGN_OR_RETURN(*work, make());
  }
  // The one before the first is the beginning.
  if (!damage.ok() && all.size() >= kKept) {
    return absl::DataLossError(absl::StrCat("no checkpoint of job \"", id,
                                            "\" is whole: ", damage.message()));
  }
  return 0;
}

std::set<std::string> JobCheckpoints::JobsWithStates() const {
  std::set<std::string> ids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(kEnd)) ids.insert(name.substr(0, name.find('.')));
  }
  return ids;
}

void JobCheckpoints::Remove(const std::string& id) {
  std::error_code error;
  for (int64_t chunks : List(id)) {
    const std::string path = Path(id, chunks);
    if (fs::remove(path, error)) Count(path, -1);
  }
}

}  // namespace cupola::engine
