#ifndef CUPOLA_SERVER_ENGINE_HOST_COPIES_H_
#define CUPOLA_SERVER_ENGINE_HOST_COPIES_H_

#include <cstdint>
#include <list>
#include <memory>

#include "ATen/ATen.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/dictionary/dictionary.h"
#include "server/dictionary/weights.h"
#include "storage/digest.h"

namespace cupola::engine {

// Dictionaries that were taken to a GPU stay on the host, in page-locked
// memory, so that one that was evicted comes back without the disk. The least
// recently used leave, so that together they hold at most `budget` bytes. On a
// CPU, where the weights are on the host already, there are no copies. Any
// thread may call.
class HostCopies {
 public:
  explicit HostCopies(int64_t budget) : budget_(budget) {}

  using DictionaryPtr = std::shared_ptr<const dictionary::Dictionary>;
  using SourcePtr = std::shared_ptr<const dictionary::DictionarySource>;
  // As Dictionary::Load, from a copy where there is one; else one is kept where
  // there is room.
  absl::StatusOr<DictionaryPtr> Load(const SourcePtr& source,
                                     dictionary::Half half, at::Device device);
  // Whether Load would not read the disk.
  bool Has(const dictionary::DictionarySource& source,
           dictionary::Half half) const;

  int64_t bytes() const;
  // Keeps a copy, pinned or not: what Load does, for who has no GPU.
  void Keep(const dictionary::DictionarySource& source, dictionary::Half half,
            dictionary::HostWeights weights);

 private:
  struct Copy {
    storage::Digest digest;
    dictionary::Half half;
    dictionary::HostWeights weights;
    int64_t bytes;
  };
  const int64_t budget_;
  mutable absl::Mutex mu_;
  std::list<Copy> copies_ ABSL_GUARDED_BY(mu_);  // the last used first
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_HOST_COPIES_H_
