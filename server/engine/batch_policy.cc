#include "server/engine/batch_policy.h"

#include <algorithm>
#include <map>
#include <queue>
#include <set>
#include <tuple>

namespace cupola::engine {
namespace {

// The parts that may be in the batch, in the order in which clients take turns.
class Turns {
 public:
  Turns(const std::vector<QueuedPart>& queue,
        const std::function<double(uint64_t)>& given)
      : queue_(queue), given_(given) {}

  void Add(size_t part) { parts_[queue_[part].client].push_back(part); }

  void Begin() {
    for (const auto& [client, parts] : parts_) {
      turns_.push({given_(client), parts.front(), 0});
    }
  }
  bool empty() const { return turns_.empty(); }
  // The next part: of who has had the least; of the same, the oldest.
  size_t front() const { return std::get<1>(turns_.top()); }
  // Goes on, the front part's client having been given `amount`.
  void Pop(double amount) {
    const auto [had, part, place] = turns_.top();
    turns_.pop();
    const std::vector<size_t>& parts = parts_.at(queue_[part].client);
    if (place + 1 == parts.size()) return;
    turns_.push({had + amount, parts[place + 1], place + 1});
  }

 private:
  // Given so far, the part, its place among its client's.
  using Turn = std::tuple<double, size_t, size_t>;

  const std::vector<QueuedPart>& queue_;
  const std::function<double(uint64_t)>& given_;
  std::map<uint64_t, std::vector<size_t>> parts_;
  std::priority_queue<Turn, std::vector<Turn>, std::greater<Turn>> turns_;
};

size_t First(const std::vector<QueuedPart>& queue,
             const std::function<double(uint64_t)>& given) {
  const bool only_bulk =
      std::all_of(queue.begin(), queue.end(),
                  [](const QueuedPart& part) { return part.bulk; });
  std::set<uint64_t> seen;
  size_t first = queue.size();
  double least = 0;
  for (size_t i = 0; i < queue.size(); ++i) {
    if (queue[i].bulk != only_bulk || !seen.insert(queue[i].client).second) {
      continue;
    }
    const double had = given(queue[i].client);
    if (first < queue.size() && had >= least) continue;
    first = i;
    least = had;
  }
  return first;
}

}  // namespace

std::vector<size_t> FormBatch(const std::vector<QueuedPart>& queue,
                              const BatchBudget& budget,
                              const std::function<double(uint64_t)>& given) {
  if (queue.empty()) return {};
  const size_t first = First(queue, given);
  Turns turns(queue, given);
  for (size_t i = 0; i < queue.size(); ++i) {
    if (queue[i].group == queue[first].group) turns.Add(i);
  }
  turns.Begin();

  std::vector<size_t> batch = {first};
  std::set<uint64_t> rows;
  if (queue[first].row != 0) rows.insert(queue[first].row);
  int64_t row_count = 1;
  int64_t longest = queue[first].tokens;
  int64_t real = queue[first].tokens;
  double seconds = queue[first].seconds;
  while (!turns.empty()) {
    const size_t i = turns.front();
    const QueuedPart& part = queue[i];
    const bool in_time = seconds + part.seconds <= budget.seconds;
    if (i == first) {
      turns.Pop(part.seconds);
      continue;
    }
    if (part.row != 0 && rows.contains(part.row) && in_time) {
      batch.push_back(i);
      seconds += part.seconds;
      turns.Pop(part.seconds);
      continue;
    }
    const int64_t new_longest = std::max(longest, part.tokens);
    const int64_t padded = new_longest * (row_count + 1);
    const int64_t new_real = real + part.tokens;
    if (padded > budget.tokens || !in_time || 4 * new_real < 3 * padded) {
      turns.Pop(0);
      continue;
    }
    batch.push_back(i);
    if (part.row != 0) rows.insert(part.row);
    ++row_count;
    longest = new_longest;
    real = new_real;
    seconds += part.seconds;
    turns.Pop(part.seconds);
  }
  std::sort(batch.begin(), batch.end());
  return batch;
}

}  // namespace cupola::engine
