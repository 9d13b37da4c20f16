#ifndef CUPOLA_STORAGE_RESULT_CACHE_PEER_H_
#define CUPOLA_STORAGE_RESULT_CACHE_PEER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "storage/result_cache.h"

namespace rocksdb {
class Env;
}  // namespace rocksdb

namespace cupola::storage {

// For tests only: a cache on files that fail on command.
class ResultCachePeer {
 public:
  // `env` outlives the cache.
  static absl::StatusOr<std::unique_ptr<ResultCache>> Open(
      const ResultCacheOptions& options, rocksdb::Env* env);
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_RESULT_CACHE_PEER_H_
