#ifndef CUPOLA_SERVER_ENGINE_DATASETS_H_
#define CUPOLA_SERVER_ENGINE_DATASETS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/request_context.h"
#include "server/engine/row_rules.h"
#include "server/engine/row_source.h"
#include "server/model/model.h"
#include "storage/digest.h"
#include "storage/durable_store.h"
#include "storage/row_store.h"

namespace cupola::engine {

// Documents of a dataset: texts, or token ids.
struct Documents {
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> ids;
};

struct TokenizedInfo {
  Tokenization how;  // nothing left to a default
  int64_t rows = 0, tokens = 0, longest = 0, cut = 0;
  storage::Digest digest{};
  storage::Digest content{};  // of the dataset
  std::string tokenizer;      // fingerprint
};

struct TokenizeDatasetRequest {
  std::string dataset;
  Tokenization how;
};
struct ReadDatasetRequest {
  std::string dataset;
  std::optional<Tokenization> how;  // none: documents
  int64_t first = 0, count = 0;
};
struct ReadDatasetAnswer {
  Documents documents;  // or rows of tokens
  int64_t rows = 0;     // of them all
};

struct DatasetInfo {
  std::string name;
  bool texts = true;  // else token ids
  int64_t rows = 0, bytes = 0;
  storage::Digest digest{};  // of the documents, in order
  absl::Time created, expires = absl::InfiniteFuture();
  std::vector<TokenizedInfo> tokenized;
};

// The corpora that jobs go over. They lie in a RocksDB directory of their own:
// documents and rows of tokens in blocks (storage/row_store.h), so that no more
// than a few blocks of one are ever in memory. Documents are kept by their
// digest, once however many names they have; rows of tokens by that of
// documents, tokenizer and rules. An upload, or a tokenization, that does not
// come to its end leaves nothing: not after a crash, either.
//
// Any thread may call; most calls wait for the disk. Errors: NOT_FOUND (with
// the names there are), ALREADY_EXISTS, INVALID_ARGUMENT (naming the field or
// the document), FAILED_PRECONDITION (in use), RESOURCE_EXHAUSTED (with both
// numbers; or the disk is full), DATA_LOSS.
class Datasets {
 public:
  static constexpr size_t kMaxDatasets = 4096;
  static constexpr size_t kMaxUploads = 16;  // at a time
  static constexpr size_t kMaxNameBytes = 128;
  static constexpr int64_t kMaxDocuments = int64_t{1} << 26;  // and rows

  struct Options {
    std::string directory;                           // empty: there are none
    int64_t max_bytes = int64_t{64} << 30;           // of all that is kept
    absl::Duration keep = absl::InfiniteDuration();  // the longest and default
    // Whether a job that has not ended goes over these documents. Must not
    // call Datasets.
    std::function<bool(const storage::Digest&)> in_use;
  };
  // A directory that cannot be opened fails each later call with its error
  // instead of the server's start.
  static std::unique_ptr<Datasets> Open(Options options);

  // A dataset that is being sent. Not thread-safe. Destroyed without Finish it
  // has never been.
  class Upload;
  // `keep`: zero for the server's choice.
  absl::StatusOr<std::unique_ptr<Upload>> Begin(const std::string& name,
                                                absl::Duration keep);

  absl::StatusOr<std::vector<DatasetInfo>> List();
  absl::StatusOr<DatasetInfo> Get(const std::string& name);
  absl::Status Delete(const std::string& name);
  // What is kept, and what is being sent.
  int64_t Bytes() const;
  int64_t MaxBytes() const { return options_.max_bytes; }
  // Ends what Tokenize is doing, now and later, as UNAVAILABLE.
  void Stop() { stopping_ = true; }

  // Rows of `how`, made unless they are there: which may take minutes, one such
  // call at a time. `model`: the one that `how` names.
  absl::StatusOr<TokenizedInfo> Tokenize(const std::string& name,
                                         const Tokenization& how,
                                         const model::ModelSource& model,
                                         const RequestContext& context);
  // Rows that Tokenize made.
  absl::StatusOr<std::shared_ptr<const RowSource>> Rows(
      const storage::Digest& tokenized) const;
  // Documents [first, first + count), fewer where they would be above
  // kMaxReadBytes, one at least. INVALID_ARGUMENT: there are none.
  static constexpr int64_t kMaxReadBytes = int64_t{4} << 20;
  absl::StatusOr<Documents> Read(const std::string& name, int64_t first,
                                 int64_t count);

 private:
  struct Content {  // documents
    std::string store;
    int64_t bytes = 0;
  };
  struct Tokenized {
    TokenizedInfo info;
    std::string store;
    int64_t bytes = 0;
  };

  explicit Datasets(Options options) : options_(std::move(options)) {}
  absl::Status ReadIndex() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<std::string> NewStore();
  absl::Status DropStore(const std::string& store);
  absl::Status CheckRoom(int64_t more) const;
  void Purge() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Forget(const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<DatasetInfo> Find(const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<DatasetInfo> Keep(DatasetInfo info, const std::string& store);
  absl::StatusOr<TokenizedInfo> MakeRows(const DatasetInfo& dataset,
                                         const std::string& documents,
                                         const RowRules& rules,
                                         const storage::Digest& digest,
                                         const model::ModelSource& model,
                                         const RequestContext& context);

  const Options options_;
  std::atomic<bool> stopping_{false};
  std::unique_ptr<storage::DurableStore> disk_;
  bool tokenizing_ ABSL_GUARDED_BY(mu_) = false;
  mutable absl::Mutex mu_;
  absl::Status opened_;
  std::map<std::string, DatasetInfo> named_ ABSL_GUARDED_BY(mu_);
  std::map<storage::Digest, Content> contents_ ABSL_GUARDED_BY(mu_);
  std::map<storage::Digest, Tokenized> tokenized_ ABSL_GUARDED_BY(mu_);
  size_t uploads_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t pending_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // not yet kept
  uint64_t stores_ ABSL_GUARDED_BY(mu_) = 0;        // made by this process
};

class Datasets::Upload {
 public:
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  // All calls bring texts, or all bring ids; none of them is empty.
  absl::Status Append(const Documents& documents);
  // `digest`: what the sender made of the documents (datasets.proto).
  absl::StatusOr<DatasetInfo> Finish(const std::string& digest);

 private:
  friend class Datasets;
  Upload(Datasets* owner, DatasetInfo info, std::string store);
  absl::Status Begin(bool texts);

  Datasets* const owner_;
  DatasetInfo info_;
  const std::string store_;
  storage::RowWriter rows_;
  std::unique_ptr<storage::Hasher> hasher_;  // null: nothing has come
  int64_t counted_ = 0;                      // of pending_bytes_
  bool kept_ = false;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DATASETS_H_
