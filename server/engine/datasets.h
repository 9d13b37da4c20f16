#ifndef CUPOLA_SERVER_ENGINE_DATASETS_H_
#define CUPOLA_SERVER_ENGINE_DATASETS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/actor.h"
#include "server/engine/byte_quota.h"
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
  std::string owner;  // who sent it (actor.h); may be empty
  std::string error;  // not empty: its record is damaged; nothing else is known
};

// Who sends a dataset.
struct Sender {
  std::string owner;   // of the dataset
  std::string client;  // whose uploads are counted
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
// the document), FAILED_PRECONDITION (in use), PERMISSION_DENIED (another's),
// RESOURCE_EXHAUSTED (with both numbers; or the disk is full), DATA_LOSS.
//
// What has expired goes when somebody asks for datasets, or for room. What the
// disk does not delete is tried again then, and counts until it has gone.
class Datasets {
 public:
  static constexpr size_t kMaxDatasets = 4096;
  static constexpr size_t kMaxUploads = 16;  // at a time
  static constexpr size_t kMaxUploadsOfClient = 4;
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
  // `keep`: from its end on; zero for the server's choice.
  absl::StatusOr<std::unique_ptr<Upload>> Begin(const std::string& name,
                                                absl::Duration keep,
                                                const Sender& sender = {});

  absl::StatusOr<std::vector<DatasetInfo>> List();
  absl::StatusOr<DatasetInfo> Get(const std::string& name);
  absl::Status Delete(const std::string& name, const Actor& by = {});
  // What is kept, and what is being sent or made: payload and lengths of rows.
  int64_t Bytes() const { return quota_->taken(); }
  int64_t MaxBytes() const { return options_.max_bytes; }
  // Ends what Tokenize is doing, now and later, as UNAVAILABLE.
  void Stop() { stopping_ = true; }

  // Rows of `how`, made unless they are there: which may take minutes, one such
  // call at a time. `model`: the one that `how` names.
  absl::StatusOr<TokenizedInfo> Tokenize(const std::string& name,
                                         const Tokenization& how,
                                         const model::ModelSource& model,
                                         const RequestContext& context);
  // Rows that Tokenize made, with their lengths: 4 bytes a row, in memory once
  // for all who hold them.
  absl::StatusOr<std::shared_ptr<const RowSource>> Rows(
      const storage::Digest& tokenized) const;
  // Documents [first, first + count), fewer where they would be above
  // kMaxReadBytes, one at least. INVALID_ARGUMENT: there are none.
  static constexpr int64_t kMaxReadBytes = int64_t{4} << 20;
  absl::StatusOr<Documents> Read(const std::string& name, int64_t first,
                                 int64_t count);
  // The same of rows that Tokenize made, which need no lengths for it.
  absl::StatusOr<Documents> ReadRows(const storage::Digest& tokenized,
                                     int64_t first, int64_t count);

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

  // A store, and what the quota counts for it.
  using Stored = std::pair<std::string, int64_t>;

  explicit Datasets(Options options);
  absl::Status ReadIndex() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Of stores that no record names: what crashes have left.
  absl::Status DropOrphans(const std::set<std::string>& used)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<std::string> NewStore();
  absl::Status DropStore(const std::string& store);
  // Drops stores that nobody uses any more, now or another time.
  void Free(std::vector<Stored> stores) ABSL_LOCKS_EXCLUDED(mu_);
  // Takes room for more, also that of what has expired.
  absl::Status Reserve(int64_t more, ByteQuota::Share* share)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Purge() ABSL_LOCKS_EXCLUDED(mu_);
  // Forgets a dataset, and says which stores go with it.
  absl::StatusOr<std::vector<Stored>> Forget(const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<DatasetInfo> Find(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  DatasetInfo Told(const DatasetInfo& info) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Where rows lie. NOT_FOUND.
  absl::StatusOr<std::string> StoreOf(const storage::Digest& tokenized) const;
  // `share`: of the store; it stays with the dataset unless the same documents
  // are here already, and then stays with the caller, as does the store.
  absl::StatusOr<DatasetInfo> Keep(DatasetInfo info, const std::string& store,
                                   ByteQuota::Share* share, bool* kept);
  absl::StatusOr<TokenizedInfo> MakeRows(const DatasetInfo& dataset,
                                         const std::string& documents,
                                         const RowRules& rules,
                                         const storage::Digest& digest,
                                         const model::ModelSource& model,
                                         const RequestContext& context);

  const Options options_;
  const std::shared_ptr<ByteQuota> quota_;
  std::atomic<bool> stopping_{false};
  std::unique_ptr<storage::DurableStore> disk_;
  bool tokenizing_ ABSL_GUARDED_BY(mu_) = false;
  mutable absl::Mutex mu_;
  absl::Status opened_;
  std::map<std::string, DatasetInfo> named_ ABSL_GUARDED_BY(mu_);
  std::map<storage::Digest, Content> contents_ ABSL_GUARDED_BY(mu_);
  std::map<storage::Digest, Tokenized> tokenized_ ABSL_GUARDED_BY(mu_);
  // Rows that somebody holds.
  mutable std::map<storage::Digest, std::weak_ptr<const RowSource>> held_
      ABSL_GUARDED_BY(mu_);
  std::vector<Stored> leftovers_ ABSL_GUARDED_BY(mu_);  // not dropped yet
  size_t uploads_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::string, size_t> uploads_of_ ABSL_GUARDED_BY(mu_);  // by client
  uint64_t stores_ ABSL_GUARDED_BY(mu_) = 0;  // made by this process
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
  Upload(Datasets* owner, DatasetInfo info, std::string client,
         absl::Duration keep);
  absl::Status Open();
  absl::Status Begin(bool texts);

  Datasets* const owner_;
  DatasetInfo info_;
  const std::string client_;
  const absl::Duration keep_;
  std::string store_;                        // empty: there is none yet
  std::optional<storage::RowWriter> rows_;   // once opened
  std::unique_ptr<storage::Hasher> hasher_;  // null: nothing has come
  ByteQuota::Share share_;
  bool kept_ = false;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DATASETS_H_
