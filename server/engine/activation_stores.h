#ifndef CUPOLA_SERVER_ENGINE_ACTIVATION_STORES_H_
#define CUPOLA_SERVER_ENGINE_ACTIVATION_STORES_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/job_info.h"
#include "server/engine/requests.h"
#include "storage/chunk_file.h"
#include "storage/digest.h"

// The active latents of a corpus, kept on the disk (source notebook E).

namespace cupola::engine {

// What a store holds when it is complete.
struct StoreAbout {
  storage::Digest key{};     // of all that can change what is in it
  JobProvenance provenance;  // of the job that made it
  int64_t d_sae = 0, tokens = 0, chunks = 0;
  absl::Time created;
};
struct StoreInfo : StoreAbout {
  int64_t tokens_there = 0, entries = 0, chunks_there = 0;
  int64_t bytes = 0;  // on the disk
  bool complete() const { return chunks_there == chunks; }
};

// The tokens of one chunk, and where each stands in the corpus.
struct StoredTokens {
  SparseArrays features;  // CSR, [tokens, d_sae]
  std::vector<int64_t> row;
  std::vector<int32_t> position;
};

// One store: a file of the chunks that the job was cut into (storage/
// chunk_file.h), each with i64 tokens, i64 entries, i64 row[tokens], i32
// position[tokens], i32 active[tokens], u32 latent[entries], f32
// value[entries]. Any thread may read; one at a time writes.
class ActivationStore {
 public:
  const StoreAbout& about() const { return about_; }
  StoreInfo Info() const;
  bool Has(int64_t chunk) const { return file_->Has(chunk); }
  // NOT_FOUND; DATA_LOSS: what is there is damaged.
  absl::StatusOr<StoredTokens> Read(int64_t chunk) const;
  // Tokens [first, first + count) of all, numbered in the job's order.
  // REQUIRES: they are there. RESOURCE_EXHAUSTED: more than `max_bytes`.
  absl::StatusOr<StoredTokens> ReadTokens(int64_t first, int64_t count,
                                          int64_t max_bytes) const;
  // RESOURCE_EXHAUSTED: the quota or the disk is full.
  absl::Status Write(int64_t chunk, const StoredTokens& tokens);
  // What was written survives a loss of power.
  absl::Status Sync() { return file_->Sync(); }

 private:
  friend class ActivationStores;
  using HasRoom = std::function<absl::Status(int64_t more)>;
  ActivationStore(StoreAbout about, std::unique_ptr<storage::ChunkFile> file,
                  HasRoom has_room);
  // What a payload of the file says. DATA_LOSS.
  absl::StatusOr<StoredTokens> Decode(const std::string& payload) const;

  const StoreAbout about_;
  const std::unique_ptr<storage::ChunkFile> file_;
  const HasRoom has_room_;
};

// All stores, each in a file named after its key. Any thread may call. Errors:
// NOT_FOUND, RESOURCE_EXHAUSTED (the quota; kMaxStores), INTERNAL (the disk).
class ActivationStores {
 public:
  static constexpr size_t kMaxStores = 256;  // each holds a file open

  struct Options {
    std::string directory;  // empty: there are none
    int64_t max_bytes = int64_t{64} << 30;
    absl::Duration keep = absl::InfiniteDuration();  // from their making on
    // Whether a job that has not ended writes the store: it is then kept.
    std::function<bool(const storage::Digest& key)> in_use;
  };
  // A directory that cannot be opened fails each later call instead of the
  // server's start. A file that is no store is passed over.
  static std::unique_ptr<ActivationStores> Open(Options options);

  // The store with this key, made unless it is there.
  absl::StatusOr<std::shared_ptr<ActivationStore>> Make(
      const StoreAbout& about);
  // Null where there is none.
  std::shared_ptr<const ActivationStore> Find(const storage::Digest& key);
  // `key`: in hexadecimal.
  absl::StatusOr<std::shared_ptr<const ActivationStore>> Get(
      const std::string& key);
  // By time of making.
  absl::StatusOr<std::vector<StoreInfo>> List();
  // Who still reads it reads on. FAILED_PRECONDITION: a job writes it.
  absl::Status Delete(const std::string& key);
  int64_t Bytes() const;
  int64_t MaxBytes() const { return options_.max_bytes; }

 private:
  using Stores = std::map<storage::Digest, std::shared_ptr<ActivationStore>>;
  explicit ActivationStores(Options options) : options_(std::move(options)) {}
  void ReadDirectory() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string PathOf(const storage::Digest& key) const;
  absl::Status HasRoom(int64_t more) const;
  void Purge() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Remove(Stores::iterator store) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  mutable absl::Mutex mu_;
  absl::Status opened_ ABSL_GUARDED_BY(mu_);
  Stores stores_ ABSL_GUARDED_BY(mu_);
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ACTIVATION_STORES_H_
