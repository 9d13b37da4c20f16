#include "server/service/kept_entries.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/model/status_macros.h"

namespace cupola::service {
namespace {

constexpr absl::string_view kUse = "entry/";
// The first byte of a record.
constexpr char kRegistered = 'r', kUploaded = 'u';

}  // namespace

const std::string& NameOf(const KeptEntry& kept) {
  return kept.entry.has_model() ? kept.entry.model().name()
                                : kept.entry.dictionary().name();
}

const std::string& PathOf(const KeptEntry& kept) {
  return kept.entry.has_model() ? kept.entry.model().path()
                                : kept.entry.dictionary().path();
}

KeptEntries::KeptEntries(const std::string& directory) {
  if (directory.empty()) return;
  auto store = storage::DurableStore::Open(directory);
  if (store.ok()) {
    store_ = *std::move(store);
  } else {
    opened_ = store.status();
  }
}

absl::StatusOr<std::map<std::string, KeptEntry>> KeptEntries::Read() const {
  RETURN_IF_ERROR(opened_);
  std::map<std::string, KeptEntry> all;
  if (store_ == nullptr) return all;
  ASSIGN_OR_RETURN(const auto records, store_->Scan(kUse));
  for (const auto& [key, record] : records) {
    KeptEntry kept;
    if (record.empty() || !kept.entry.ParseFromString(record.substr(1)) ||
        (record[0] != kRegistered && record[0] != kUploaded)) {
      continue;
    }
    kept.uploaded = record[0] == kUploaded;
    std::string name = NameOf(kept);
    all[std::move(name)] = std::move(kept);
  }
  return all;
}

absl::Status KeptEntries::Put(const KeptEntry& kept) {
  RETURN_IF_ERROR(opened_);
  if (store_ == nullptr) return absl::OkStatus();
  return store_->Put(
      absl::StrCat(kUse, NameOf(kept)),
      absl::StrCat(std::string(1, kept.uploaded ? kUploaded : kRegistered),
                   kept.entry.SerializeAsString()));
}

absl::Status KeptEntries::Delete(const std::string& name) {
  RETURN_IF_ERROR(opened_);
  if (store_ == nullptr) return absl::OkStatus();
  return store_->Delete(absl::StrCat(kUse, name));
}

}  // namespace cupola::service
