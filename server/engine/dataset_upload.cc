#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/engine/datasets.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

Datasets::Upload::Upload(Datasets* owner, DatasetInfo info, std::string client,
                         absl::Duration keep)
    : owner_(owner),
      info_(std::move(info)),
      client_(std::move(client)),
      keep_(keep),
      share_(owner->quota_) {}

Datasets::Upload::~Upload() {
  if (!kept_ && !store_.empty()) {
    const int64_t bytes = share_.bytes();
    share_.Keep();  // until the store has gone
    owner_->Free({{store_, bytes}});
  }
  absl::MutexLock lock(&owner_->mu_);
  --owner_->uploads_;
  const auto mine = owner_->uploads_of_.find(client_);
  if (--mine->second == 0) owner_->uploads_of_.erase(mine);
}

absl::Status Datasets::Upload::Open() {
  info_.created = absl::Now();
  ASSIGN_OR_RETURN(store_, owner_->NewStore());
  rows_.emplace(owner_->disk_.get(), absl::StrCat("rows/", store_, "/"));
  return absl::OkStatus();
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
                   rows_->rows(), " on; accepted: one of the two"));
}

absl::Status Datasets::Upload::Append(const Documents& documents) {
  const size_t rows = documents.texts.size() + documents.ids.size();
  int64_t bytes = storage::RowWriter::kRowBytes * static_cast<int64_t>(rows);
  for (const auto& text : documents.texts) bytes += text.size();
  for (const auto& ids : documents.ids) bytes += sizeof(int32_t) * ids.size();
  RETURN_IF_ERROR(owner_->Reserve(bytes, &share_));
  const auto check = [this](bool empty) -> absl::Status {
    if (empty) {
      return absl::InvalidArgumentError(
          absl::StrCat("rows: document ", rows_->rows(),
                       " is empty; accepted: at least one character or token"));
    }
    if (rows_->rows() >= kMaxDocuments) {
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
    RETURN_IF_ERROR(rows_->Append(text));
  }
  for (const std::vector<int32_t>& ids : documents.ids) {
    RETURN_IF_ERROR(Begin(false));
    RETURN_IF_ERROR(check(ids.empty()));
    hasher_->AddInts(ids.data(), ids.size());
    RETURN_IF_ERROR(rows_->Append(
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
  RETURN_IF_ERROR(rows_->Finish());
  info_.rows = rows_->rows();
  info_.bytes = rows_->bytes();
  info_.expires = absl::Now() + keep_;
  return owner_->Keep(info_, store_, &share_, &kept_);
}

}  // namespace cupola::engine
