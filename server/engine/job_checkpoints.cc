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

absl::Status JobCheckpoints::Save(const std::string& id,
                                  const std::string& kind, const JobWork& work,
                                  int64_t chunks) const {
  ASSIGN_OR_RETURN(
      const std::unique_ptr<storage::StateWriter> state,
      storage::StateWriter::Create(
          Path(id, chunks), {kind, work.version(), work.identity(), chunks}));
  RETURN_IF_ERROR(work.Save(state.get()));
  RETURN_IF_ERROR(state->Commit());
  const std::vector<int64_t> all = List(id);
  std::error_code error;
  for (size_t i = 0; i + kKept < all.size(); ++i) {
    fs::remove(Path(id, all[i]), error);
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

int64_t JobCheckpoints::Bytes() const {
  int64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    const fs::path kind = entry.path().extension();
    if (kind != kEnd && kind != kPart) continue;
    const auto size = entry.file_size(error);
    if (!error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

int64_t JobCheckpoints::LastBytes(const std::string& id) const {
  const std::vector<int64_t> all = List(id);
  if (all.empty()) return 0;
  std::error_code error;
  const auto size = fs::file_size(Path(id, all.back()), error);
  return error ? 0 : static_cast<int64_t>(size);
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

void JobCheckpoints::Remove(const std::string& id) const {
  std::error_code error;
  for (int64_t chunks : List(id)) fs::remove(Path(id, chunks), error);
}

void JobCheckpoints::RemoveUnfinished() const {
  std::error_code error;
  std::vector<fs::path> unfinished;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    if (entry.path().extension() == kPart) unfinished.push_back(entry.path());
  }
  for (const fs::path& path : unfinished) fs::remove(path, error);
}

}  // namespace cupola::engine
