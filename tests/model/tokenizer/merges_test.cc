#include "server/model/tokenizer/merges.h"

#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::model::tokenizer {
namespace {

using ::testing::ElementsAre;

struct Rule {
  int32_t left, right, merged;
};

// The definition, word for word: of the rules that apply, the lowest; of the
// places where it applies, the leftmost.
std::vector<int32_t> MergeSlowly(const std::vector<Rule>& rules,
                                 std::vector<int32_t> ids) {
  for (;;) {
    size_t best_rule = rules.size();
    size_t best_place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      for (size_t r = 0; r < best_rule; ++r) {
        if (rules[r].left == ids[i] && rules[r].right == ids[i + 1]) {
          best_rule = r;
          best_place = i;
        }
      }
    }
    if (best_rule == rules.size()) return ids;
    ids[best_place] = rules[best_rule].merged;
    ids.erase(ids.begin() + best_place + 1);
  }
}

std::vector<int32_t> MergeFast(const Merges& merges, std::vector<int32_t> ids) {
  ids.resize(merges.Apply(ids.data(), ids.size()));
  return ids;
}

TEST(MergesTest, LowerRanksGoFirst) {
  Merges merges;  // a b c -> ab, bc
  merges.Add(0, 1, 1, 10);
  merges.Add(1, 2, 0, 11);
  EXPECT_THAT(MergeFast(merges, {0, 1, 2}), ElementsAre(0, 11));
  EXPECT_THAT(MergeFast(merges, {0, 1, 0}), ElementsAre(10, 0));
  EXPECT_THAT(MergeFast(merges, {}), ElementsAre());
  EXPECT_THAT(MergeFast(merges, {2}), ElementsAre(2));
}

TEST(MergesTest, ALaterRuleReplacesAnEarlierOne) {
  Merges merges;
  merges.Add(0, 1, 0, 10);
  merges.Add(0, 1, 1, 11);
  EXPECT_THAT(MergeFast(merges, {0, 1}), ElementsAre(11));
}

TEST(MergesTest, AgreesWithTheDefinitionAtEveryLength) {
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    // Strings over 4 letters; a rule joins two tokens that exist already.
    constexpr int kLetters = 4;
    std::vector<int> first, last;  // of each token
    for (int i = 0; i < kLetters; ++i) {
      first.push_back(i);
      last.push_back(i);
    }
    std::vector<Rule> rules;
    Merges merges;
    for (int r = 0; r < 25; ++r) {
      const auto pick = [&] {
        return static_cast<int32_t>(random() % first.size());
      };
      const int32_t left = pick(), right = pick();
      bool known = false;
      for (const Rule& rule : rules) {
        known = known || (rule.left == left && rule.right == right);
      }
      if (known) continue;
      const auto merged = static_cast<int32_t>(first.size());
      first.push_back(first[left]);
      last.push_back(last[right]);
      merges.Add(left, right, rules.size(), merged);
      merges.AddJoint(last[left], first[right]);
      rules.push_back({left, right, merged});
    }
    // 32 is where the two ways of merging meet.
    for (const int length : {2, 3, 7, 31, 32, 33, 34, 100, 300}) {
      std::vector<int32_t> ids(length);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % kLetters);
      EXPECT_EQ(MergeFast(merges, ids), MergeSlowly(rules, ids))
          << "round " << round << " length " << length;
    }
  }
}

TEST(MergesTest, TakesALongWord) {
  Merges merges;
  merges.Add(0, 0, 0, 1);  // pairs, pairs of pairs, ...
  for (int i = 1; i < 20; ++i) merges.Add(i, i, i, i + 1);
  merges.AddJoint(0, 0);
  std::vector<int32_t> ids(1 << 20, 0);
  EXPECT_THAT(MergeFast(merges, ids), ElementsAre(20));
}

}  // namespace
}  // namespace cupola::model::tokenizer
