#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/engine/datasets.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

Datasets::Upload::Upload(Datasets* owner, DatasetInfo info, std::string store)
    : owner_(owner),
      info_(std::move(info)),
      store_(std::move(store)),
      rows_(owner->disk_.get(), absl::StrCat("rows/", store_, "/")) {}

Datasets::Upload::~Upload() {
  // What the disk cannot drop now goes with the next start.
  if (!kept_) owner_->DropStore(store_).IgnoreError();
  absl::MutexLock lock(&owner_->mu_);
  --owner_->uploads_;
  owner_->pending_bytes_ -= counted_;
}

absl::Status Datasets::Upload::Begin(bool texts) {
  if (hasher_ == nullptr) {
    info_.texts = texts;
    hasher_ = std::make_unique<storage::Hasher>(texts ? "dataset/texts/1"
                                                      : "dataset/tokens/1");
  }
  if (info_.texts == texts) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("rows: token ids and texts in one dataset, from document ",
                   rows_.rows(), " on; accepted: one of the two"));
}

absl::Status Datasets::Upload::Append(const Documents& documents) {
  int64_t bytes = 0;
  for (const auto& text : documents.texts) bytes += text.size();
  for (const auto& ids : documents.ids) bytes += sizeof(int32_t) * ids.size();
  RETURN_IF_ERROR(owner_->CheckRoom(bytes));
  {
    absl::MutexLock lock(&owner_->mu_);
    owner_->pending_bytes_ += bytes;
    counted_ += bytes;
  }
  const auto check = [this](bool empty) -> absl::Status {
    if (empty) {
      return absl::InvalidArgumentError(
          absl::StrCat("rows: document ", rows_.rows(),
                       " is empty; accepted: at least one character or token"));
    }
    if (rows_.rows() >= kMaxDocuments) {
      return absl::ResourceExhaustedError(
          absl::StrCat("rows: more than ", kMaxDocuments,
                       " documents; accepted: ", kMaxDocuments));
    }
    return absl::OkStatus();
  };
  for (const std::string& text : documents.texts) {
    RETURN_IF_ERROR(Begin(true));
    RETURN_IF_ERROR(check(text.empty()));
    hasher_->AddBytes(text);
    RETURN_IF_ERROR(rows_.Append(text));
  }
  for (const std::vector<int32_t>& ids : documents.ids) {
    RETURN_IF_ERROR(Begin(false));
    RETURN_IF_ERROR(check(ids.empty()));
    hasher_->AddInts(ids.data(), ids.size());
    RETURN_IF_ERROR(rows_.Append(
        absl::string_view(reinterpret_cast<const char*>(ids.data()),
                          sizeof(int32_t) * ids.size())));
  }
  return absl::OkStatus();
}

absl::StatusOr<DatasetInfo> Datasets::Upload::Finish(
    const std::string& digest) {
  if (hasher_ == nullptr) {
    return absl::InvalidArgumentError(
        "rows: the dataset has no documents; accepted: at least one");
  }
  if (digest.size() != info_.digest.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("sha256 has ", digest.size(), " bytes; accepted: 32"));
  }
  info_.digest = hasher_->Finish();
  if (std::memcmp(info_.digest.data(), digest.data(), digest.size()) != 0) {
    return absl::DataLossError(absl::StrCat(
        "sha256 is ", absl::BytesToHexString(digest), ", but what came has ",
        storage::ToHex(info_.digest), ": nothing is kept"));
  }
  RETURN_IF_ERROR(rows_.Finish());
  info_.rows = rows_.rows();
  info_.bytes = rows_.bytes();
  ASSIGN_OR_RETURN(DatasetInfo kept, owner_->Keep(info_, store_));
  kept_ = true;  // or dropped, where the same was there
  return kept;
}

}  // namespace cupola::engine
