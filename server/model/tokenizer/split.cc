#include "server/model/tokenizer/split.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cupola::model::tokenizer {
namespace {

// Calls visit(stretch, is_delimiter) for delimiters and what lies between.
template <typename Visit>
void ForEachStretch(const std::vector<Match>& delimiters, size_t size,
                    bool inverted, Visit visit) {
  size_t end = 0;
  for (const Match& delimiter : delimiters) {
    if (delimiter.begin != end) {
      visit(Match{end, delimiter.begin}, inverted);
    }
    visit(delimiter, !inverted);
    end = delimiter.end;
  }
  if (end != size) visit(Match{end, size}, inverted);
}

}  // namespace

absl::StatusOr<SplitBehavior> ParseSplitBehavior(absl::string_view name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return absl::InvalidArgumentError(
      absl::StrCat("split behavior \"", name, "\" is not supported"));
}

void SplitAt(const std::vector<Match>& delimiters, size_t size, bool inverted,
             SplitBehavior behavior, std::vector<Match>* parts) {
  parts->clear();
  bool after = false;      // the stretch before was a delimiter
  bool mergeable = false;  // a lone delimiter that waits for what follows it
  ForEachStretch(delimiters, size, inverted,
                 [&](Match stretch, bool is_delimiter) {
                   bool merge = false;
                   switch (behavior) {
                     case SplitBehavior::kRemoved:
                       if (is_delimiter) return;
                       break;
                     case SplitBehavior::kIsolated:
                       break;
                     case SplitBehavior::kContiguous:
                       merge = is_delimiter == after;
                       break;
                     case SplitBehavior::kMergedWithPrevious:
                       merge = is_delimiter && !after;
                       break;
                     case SplitBehavior::kMergedWithNext:
                       // Of several delimiters in a row, only the last one
                       // merges.
                       merge = !is_delimiter && mergeable;
                       mergeable = is_delimiter;
                       break;
                   }
                   if (merge && !parts->empty()) {
                     parts->back().end = stretch.end;
                   } else {
                     parts->push_back(stretch);
                   }
                   after = is_delimiter;
                 });
}

}  // namespace cupola::model::tokenizer
