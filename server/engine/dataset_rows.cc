#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/engine/dataset_records.h"
#include "server/engine/datasets.h"
#include "server/model/status_macros.h"

// Datasets: what is read of the rows that are kept, and made of them.

namespace cupola::engine {
namespace {

// How often who waits for another's tokenization looks whether it is wanted.
constexpr absl::Duration kLook = absl::Milliseconds(100);

std::vector<int32_t> ToIds(const std::string& bytes) {
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  return ids;
}

absl::string_view ToBytes(const std::vector<int32_t>& ids) {
  return absl::string_view(reinterpret_cast<const char*>(ids.data()),
                           ids.size() * sizeof(int32_t));
}

class StoredRows : public RowSource {
 public:
  StoredRows(std::unique_ptr<storage::RowReader> reader,
             std::vector<uint32_t> lengths)
      : reader_(std::move(reader)), lengths_(std::move(lengths)) {}

  int64_t rows() const override { return reader_->rows(); }
  const std::vector<uint32_t>& lengths() const override { return lengths_; }
  absl::StatusOr<std::vector<std::vector<int32_t>>> Read(
      int64_t first, int64_t last) const override {
    ASSIGN_OR_RETURN(const std::vector<std::string> bytes,
                     reader_->Read(first, last));
    std::vector<std::vector<int32_t>> rows;
    for (const std::string& row : bytes) rows.push_back(ToIds(row));
    return rows;
  }

 private:
  const std::unique_ptr<storage::RowReader> reader_;
  const std::vector<uint32_t> lengths_;
};

std::string RowsOf(const std::string& store) {
  return absl::StrCat("rows/", store, "/");
}

// Rows [first, first + count) of a store, or fewer: kMaxReadBytes.
absl::StatusOr<Documents> ReadSome(const storage::DurableStore& disk,
                                   const std::string& store, bool texts,
                                   int64_t first, int64_t count) {
  ASSIGN_OR_RETURN(const auto reader,
                   storage::RowReader::Open(&disk, RowsOf(store)));
  if (first < 0 || first >= reader->rows() || count < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("first and count are ", first, " and ", count,
                     "; accepted: a first from 0 to ", reader->rows() - 1,
                     " and a count of at least 1"));
  }
  Documents documents;
  const int64_t last = first + std::min(count, reader->rows() - first);
  int64_t room = Datasets::kMaxReadBytes;
  for (int64_t at = first; at < last && room > 0;) {
    const int64_t end = std::min(last, at + reader->RowsInBlock(at));
    ASSIGN_OR_RETURN(std::vector<std::string> rows, reader->Read(at, end));
    for (std::string& row : rows) {
      if (at > first && static_cast<int64_t>(row.size()) > room) {
        room = 0;
        break;
      }
      room -= static_cast<int64_t>(row.size());
      ++at;
      if (texts) {
        documents.texts.push_back(std::move(row));
      } else {
        documents.ids.push_back(ToIds(row));
      }
    }
  }
  return documents;
}

}  // namespace

absl::StatusOr<Documents> Datasets::Read(const std::string& name, int64_t first,
                                         int64_t count) {
  DatasetInfo info;
  std::string store;
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(info, Find(name));
    if (!info.error.empty()) return absl::DataLossError(info.error);
    store = contents_.at(info.digest).store;
  }
  return ReadSome(*disk_, store, info.texts, first, count);
}

absl::StatusOr<Documents> Datasets::ReadRows(const storage::Digest& tokenized,
                                             int64_t first, int64_t count) {
  ASSIGN_OR_RETURN(const std::string store, StoreOf(tokenized));
  return ReadSome(*disk_, store, false, first, count);
}

absl::StatusOr<std::string> Datasets::StoreOf(
    const storage::Digest& tokenized) const {
  RETURN_IF_ERROR(opened_);
  absl::MutexLock lock(&mu_);
  const auto found = tokenized_.find(tokenized);
  if (found != tokenized_.end()) return found->second.store;
  return absl::NotFoundError(
      absl::StrCat("the rows ", storage::ToHex(tokenized),
                   " of a dataset are not here: upload and tokenize it again"));
}

absl::StatusOr<std::shared_ptr<const RowSource>> Datasets::Rows(
    const storage::Digest& tokenized) const {
  ASSIGN_OR_RETURN(const std::string store, StoreOf(tokenized));
  {
    absl::MutexLock lock(&mu_);
    const auto held = held_.find(tokenized);
    if (held != held_.end()) {
      if (auto rows = held->second.lock(); rows != nullptr) return rows;
    }
  }
  ASSIGN_OR_RETURN(auto reader,
                   storage::RowReader::Open(disk_.get(), RowsOf(store)));
  ASSIGN_OR_RETURN(std::vector<uint32_t> lengths, reader->Lengths());
  for (uint32_t& length : lengths) length /= sizeof(int32_t);
  const auto rows =
      std::make_shared<const StoredRows>(std::move(reader), std::move(lengths));
  absl::MutexLock lock(&mu_);
  std::erase_if(held_, [](const auto& held) { return held.second.expired(); });
  held_[tokenized] = rows;
  return rows;
}

absl::StatusOr<TokenizedInfo> Datasets::Tokenize(
    const std::string& name, const Tokenization& how,
    const model::ModelSource& model, const RequestContext& context) {
  ASSIGN_OR_RETURN(const DatasetInfo dataset, Get(name));
  if (!dataset.error.empty()) return absl::DataLossError(dataset.error);
  ASSIGN_OR_RETURN(const RowRules rules,
                   RowRules::Resolve(how, dataset.texts, model));
  const storage::Digest digest =
      rules.DigestOf(dataset.digest, model.tokenizer());
  std::string documents;
  {
    absl::MutexLock lock(&mu_);
    // One at a time; rows that are there already wait for nobody.
    const auto mine = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return !tokenizing_ || tokenized_.contains(digest);
    };
    while (!mu_.AwaitWithTimeout(absl::Condition(&mine), kLook)) {
      RETURN_IF_ERROR(StillWanted(context));
    }
    const auto found = tokenized_.find(digest);
    if (found != tokenized_.end()) return found->second.info;
    RETURN_IF_ERROR(StillWanted(context));
    const auto content = contents_.find(dataset.digest);
    if (content == contents_.end()) return Find(name).status();
    documents = content->second.store;
    tokenizing_ = true;
  }
  const absl::Cleanup end = [this] {
    absl::MutexLock lock(&mu_);
    tokenizing_ = false;
  };
  return MakeRows(dataset, documents, rules, digest, model, context);
}

absl::StatusOr<TokenizedInfo> Datasets::MakeRows(
    const DatasetInfo& dataset, const std::string& documents,
    const RowRules& rules, const storage::Digest& digest,
    const model::ModelSource& model, const RequestContext& context) {
  ASSIGN_OR_RETURN(const auto reader,
                   storage::RowReader::Open(disk_.get(), RowsOf(documents)));
  ASSIGN_OR_RETURN(const std::string store, NewStore());
  ByteQuota::Share share(quota_);
  absl::Cleanup drop = [&] {
    const int64_t bytes = share.bytes();
    share.Keep();  // until the store has gone
    Free({{store, bytes}});
  };
  storage::RowWriter writer(disk_.get(), RowsOf(store));
  RowMaker maker(rules, [&writer](const std::vector<int32_t>& row) {
    return writer.Append(ToBytes(row));
  });
  const auto deleted = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return contents_.contains(dataset.digest)
               ? absl::OkStatus()
               : absl::NotFoundError(
                     absl::StrCat("dataset \"", dataset.name,
                                  "\" was deleted while it was tokenized"));
  };
  for (int64_t at = 0; at < reader->rows();) {
    const int64_t last = at + reader->RowsInBlock(at);
    const auto rows = reader->Read(at, last);
    if (!rows.ok()) {
      absl::MutexLock lock(&mu_);
      RETURN_IF_ERROR(deleted());
      return rows.status();
    }
    for (const std::string& row : *rows) {
      RETURN_IF_ERROR(StillWanted(context));
      if (stopping_) {
        return absl::UnavailableError("the server is shutting down");
      }
      std::vector<int32_t> ids;
      if (dataset.texts) {
        auto encoded = model.tokenizer().Encode(row);
        if (!encoded.ok()) {
          return absl::Status(encoded.status().code(),
                              absl::StrCat("document ", maker.documents(), ": ",
                                           encoded.status().message()));
        }
        ids = *std::move(encoded);
      } else {
        ids = ToIds(row);
      }
      RETURN_IF_ERROR(maker.Add(ids));
      if (writer.rows() > kMaxDocuments) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "tokenization: it makes more than ", kMaxDocuments,
            " rows; accepted: ", kMaxDocuments, " (raise row_tokens)"));
      }
    }
    RETURN_IF_ERROR(Reserve(writer.stored_bytes() - share.bytes(), &share));
    at = last;
  }
  RETURN_IF_ERROR(maker.Finish());
  RETURN_IF_ERROR(Reserve(writer.stored_bytes() - share.bytes(), &share));
  RETURN_IF_ERROR(writer.Finish());
  TokenizedRecord record{
      {rules.how, writer.rows(), maker.tokens(), maker.longest(), maker.cut(),
       digest, dataset.digest, model.tokenizer().fingerprint()},
      store,
      share.bytes()};
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(deleted());
  RETURN_IF_ERROR(disk_->Put(absl::StrCat("tokenized/", storage::ToHex(digest)),
                             ToRecord(record)));
  tokenized_[digest] = {record.info, store, record.bytes};
  share.Keep();
  std::move(drop).Cancel();
  disk_->Delete(absl::StrCat("unfinished/", store)).IgnoreError();
  return record.info;
}

}  // namespace cupola::engine
