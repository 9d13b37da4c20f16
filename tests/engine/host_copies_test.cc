#include "server/engine/host_copies.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "tests/dictionary/dictionary_files.h"

namespace cupola::engine {
namespace {

using dictionary::Dictionary;
using dictionary::DictionarySource;
using dictionary::Half;

std::shared_ptr<const DictionarySource> Source(const std::string& architecture,
                                               int seed) {
  const model::Json cfg = dictionary::testing::Config(architecture);
  const auto source = DictionarySource::Open(
      dictionary::testing::WriteDictionary(
          cfg, dictionary::testing::RandomTensors(cfg, seed)),
      {}, dictionary::testing::SmallModel());
  EXPECT_TRUE(source.ok()) << source.status();
  return *source;
}

dictionary::HostWeights Read(const DictionarySource& source) {
  auto weights = dictionary::ReadWeights(source, Half::kIn);
  EXPECT_TRUE(weights.ok()) << weights.status();
  return *std::move(weights);
}

at::Tensor Encoded(const Dictionary& dictionary) {
  const at::Tensor x =
      at::arange(3 * dictionary.d_in(), at::kFloat).cos().view({3, -1});
  const auto acts = dictionary.EncodeDense(x);
  EXPECT_TRUE(acts.ok()) << acts.status();
  return *acts;
}

TEST(HostCopiesTest, ACopyIsTheDictionary) {
  for (const char* architecture :
       {"standard", "gated", "jumprelu", "topk", "matching_pursuit"}) {
    SCOPED_TRACE(architecture);
    const auto source = Source(architecture, 1);
    HostCopies copies(1 << 20);
    const auto first = copies.Load(source, Half::kIn, at::kCPU);
    ASSERT_TRUE(first.ok()) << first.status();
    // On a CPU nothing is kept twice.
    EXPECT_FALSE(copies.Has(*source, Half::kIn));
    copies.Keep(*source, Half::kIn, Read(*source));
    EXPECT_TRUE(copies.Has(*source, Half::kIn));
    for (int i = 0; i < 2; ++i) {
      const auto again = copies.Load(source, Half::kIn, at::kCPU);
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_TRUE(at::equal(Encoded(**again), Encoded(**first)));
      EXPECT_TRUE(
          at::equal((*again)->weights().W_dec, (*first)->weights().W_dec));
    }
  }
}

TEST(HostCopiesTest, TheLeastRecentlyUsedLeave) {
  const auto a = Source("standard", 1), b = Source("standard", 2),
             c = Source("standard", 3);
  const int64_t each = Read(*a).Bytes();
  HostCopies copies(2 * each);
  copies.Keep(*a, Half::kIn, Read(*a));
  copies.Keep(*b, Half::kIn, Read(*b));
  copies.Keep(*b, Half::kIn, Read(*b));
  EXPECT_EQ(copies.bytes(), 2 * each);
  ASSERT_TRUE(copies.Load(a, Half::kIn, at::kCPU).ok());
  copies.Keep(*c, Half::kIn, Read(*c));
  EXPECT_EQ(copies.bytes(), 2 * each);
  EXPECT_TRUE(copies.Has(*a, Half::kIn));
  EXPECT_FALSE(copies.Has(*b, Half::kIn));
  EXPECT_TRUE(copies.Has(*c, Half::kIn));
  EXPECT_FALSE(copies.Has(*c, Half::kOut));
  HostCopies none(0);
  none.Keep(*a, Half::kIn, Read(*a));
  EXPECT_EQ(none.bytes(), 0);
}

}  // namespace
}  // namespace cupola::engine
