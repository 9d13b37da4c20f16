#ifndef CUPOLA_SERVER_ENGINE_ROW_SOURCE_H_
#define CUPOLA_SERVER_ENGINE_ROW_SOURCE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace cupola::engine {

// Rows of tokens that a job goes over, numbered from 0 and always the same. Any
// thread may call.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual int64_t rows() const = 0;
  // Tokens of each row: 4 bytes a row are held, the rows themselves are not.
  virtual const std::vector<uint32_t>& lengths() const = 0;
  // Token ids of rows [first, last). REQUIRES: 0 <= first <= last <= rows().
  virtual absl::StatusOr<std::vector<std::vector<int32_t>>> Read(
      int64_t first, int64_t last) const = 0;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ROW_SOURCE_H_
