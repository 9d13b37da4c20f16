#ifndef CUPOLA_SERVER_ENGINE_DATASET_RECORDS_H_
#define CUPOLA_SERVER_ENGINE_DATASET_RECORDS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/datasets.h"
#include "server/model/json.h"
#include "storage/digest.h"

// What is written of a dataset and of its rows, as JSON. DATA_LOSS, naming
// `key`, where it is not what was written.

namespace cupola::engine {

struct DatasetRecord {
  DatasetInfo info;
  std::string store;
};
std::string ToRecord(const DatasetRecord& record);
absl::StatusOr<DatasetRecord> ParseDataset(const std::string& key,
                                           const std::string& text);

struct TokenizedRecord {
  TokenizedInfo info;
  std::string store;
  int64_t bytes = 0;
};
std::string ToRecord(const TokenizedRecord& record);
absl::StatusOr<TokenizedRecord> ParseTokenized(const std::string& key,
                                               const std::string& text);

model::Json ToJson(const Tokenization& how);
// Throws Json::exception.
Tokenization TokenizationFromJson(const model::Json& json);

// The inverse of storage::ToHex; zeros where it is none.
storage::Digest DigestFromHex(absl::string_view hex);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DATASET_RECORDS_H_
