#include "server/model/tokenizer/merges.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

namespace cupola::model::tokenizer {
namespace {

constexpr size_t kFew = 32;
constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();
constexpr int32_t kNone = -1;

uint64_t Key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
         static_cast<uint32_t>(right);
}

}  // namespace

void Merges::Add(int32_t left, int32_t right, uint32_t rank, int32_t merged) {
  rules_[Key(left, right)] = {rank, merged};
}

void Merges::AddJoint(int32_t last, int32_t first) {
  joints_.insert(Key(last, first));
}

const Merges::Rule* Merges::Find(int32_t left, int32_t right) const {
  const auto it = rules_.find(Key(left, right));
  return it == rules_.end() ? nullptr : &it->second;
}

size_t Merges::Apply(int32_t* ids, size_t count) const {
  if (count <= kFew) return ApplyToFew(ids, count);
  size_t kept = 0;
  for (size_t begin = 0; begin < count;) {
    size_t end = begin + 1;
    while (end < count && joints_.contains(Key(ids[end - 1], ids[end]))) ++end;
    const size_t size = end - begin;
    const size_t left = size <= kFew ? ApplyToFew(ids + begin, size)
                                     : ApplyToMany(ids + begin, size);
    std::copy(ids + begin, ids + begin + left, ids + kept);
    kept += left;
    begin = end;
  }
  return kept;
}

size_t Merges::ApplyToFew(int32_t* ids, size_t count) const {
  std::array<Rule, kFew> rules;  // of each symbol with the one behind it
  const auto look_up = [&](size_t i) {
    const Rule* const rule = Find(ids[i], ids[i + 1]);
    rules[i] = rule == nullptr ? Rule{kNoRank, kNone} : *rule;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (rules[i].rank < rules[best].rank) best = i;
    }
    if (rules[best].rank == kNoRank) break;
    ids[best] = rules[best].merged;
    --count;
    for (size_t i = best + 1; i < count; ++i) {
      ids[i] = ids[i + 1];
      if (i + 1 < count) rules[i] = rules[i + 1];
    }
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  return count;
}

size_t Merges::ApplyToMany(int32_t* ids, size_t count) const {
  struct Node {
    int32_t id;  // kNone once merged into the one before it
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;
    int32_t merged;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto size = static_cast<int32_t>(count);
  std::vector<Node> nodes(count);
  for (int32_t i = 0; i < size; ++i) {
    nodes[i] = {ids[i], i - 1, i + 1 < size ? i + 1 : kNone};
  }
  std::vector<Candidate> initial;
  initial.reserve(count);
  for (int32_t i = 0; i + 1 < size; ++i) {
    if (const Rule* rule = Find(nodes[i].id, nodes[i + 1].id)) {
      initial.push_back({rule->rank, i, rule->merged});
    }
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap(
      std::greater<>(), std::move(initial));
  const auto offer = [&](int32_t position) {
    if (position == kNone || nodes[position].next == kNone) return;
    const Node& left = nodes[position];
    if (const Rule* rule = Find(left.id, nodes[left.next].id)) {
      heap.push({rule->rank, position, rule->merged});
    }
  };
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    Node& left = nodes[best.position];
    if (left.id == kNone || left.next == kNone) continue;
    // The pair may have changed since it was offered.
    const Rule* const rule = Find(left.id, nodes[left.next].id);
    if (rule == nullptr || rule->merged != best.merged) continue;
    Node& right = nodes[left.next];
    left.id = best.merged;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) nodes[left.next].previous = best.position;
    offer(left.previous);
    offer(best.position);
  }
  size_t kept = 0;
  for (const Node& node : nodes) {
    if (node.id != kNone) ids[kept++] = node.id;
  }
  return kept;
}

}  // namespace cupola::model::tokenizer
