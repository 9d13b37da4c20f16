#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_SPLIT_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_SPLIT_H_

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/tokenizer/regex.h"

namespace cupola::model::tokenizer {

// What becomes of the delimiters when a text is split at them. On "a--b" with
// the delimiter "-": kRemoved a,b; kIsolated a,-,-,b; kMergedWithPrevious
// a-,-,b; kMergedWithNext a,-,-b; kContiguous a,--,b.
enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

// INVALID_ARGUMENT: no such behaviour.
absl::StatusOr<SplitBehavior> ParseSplitBehavior(absl::string_view name);

// The parts of a text of `size` bytes whose delimiters are `delimiters` (in
// order, none overlapping), into `parts`. `inverted`: the delimiters are
// what lies between. Parts may be empty where a delimiter is.
void SplitAt(const std::vector<Match>& delimiters, size_t size, bool inverted,
             SplitBehavior behavior, std::vector<Match>* parts);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_SPLIT_H_
