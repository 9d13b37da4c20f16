#include "server/engine/batch_policy.h"

#include <algorithm>

namespace cupola::engine {

std::vector<size_t> FormBatch(const std::vector<QueuedPart>& queue,
                              int64_t token_budget) {
  if (queue.empty()) return {};
  size_t first = 0;
  while (first < queue.size() && queue[first].bulk) ++first;
  if (first == queue.size()) first = 0;
  std::vector<size_t> batch = {first};
  int64_t longest = queue[first].tokens;
  int64_t real = queue[first].tokens;
  for (size_t i = first + 1; i < queue.size(); ++i) {
    if (queue[i].group != queue[first].group) continue;
    const int64_t new_longest = std::max(longest, queue[i].tokens);
    const int64_t padded = new_longest * static_cast<int64_t>(batch.size() + 1);
    const int64_t new_real = real + queue[i].tokens;
    if (padded > token_budget || 4 * new_real < 3 * padded) continue;
    batch.push_back(i);
    longest = new_longest;
    real = new_real;
  }
  return batch;
}

}  // namespace cupola::engine
