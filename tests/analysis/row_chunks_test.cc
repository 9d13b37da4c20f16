#include "server/analysis/row_chunks.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(RowChunks, HoldAllRowsInOrder) {
  std::vector<Sequence> sequences(4);
  sequences[0].positions = {0, 1, 2, 3, 4};
  sequences[2].positions = {7};
  sequences[3].positions = {3, 5};
  for (Sequence& sequence : sequences) {
    sequence.tokens = {1, 2, 3};
    sequence.lists = {{9}};
  }
  std::vector<Placed> placed;
  for (size_t i = 0; i < sequences.size(); ++i) {
    placed.push_back({&sequences[i], static_cast<int64_t>(10 + i)});
  }
  std::deque<Sequence> cut;
  const auto positions = [](const RowChunk& chunk) {
    std::vector<std::vector<int64_t>> all;
    for (const Placed& one : chunk.sequences) {
      all.push_back(one.sequence->positions);
    }
    return all;
  };

  std::vector<RowChunk> chunks = ChunkRows(placed, 2, &cut);
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_THAT(positions(chunks[0]), ElementsAre(ElementsAre(0, 1)));
  EXPECT_THAT(positions(chunks[1]), ElementsAre(ElementsAre(2, 3)));
  EXPECT_THAT(positions(chunks[2]),
              ElementsAre(ElementsAre(4), ElementsAre(7)));
  EXPECT_THAT(positions(chunks[3]), ElementsAre(ElementsAre(3, 5)));
  EXPECT_THAT(chunks[2].of, ElementsAre(0, 2));
  EXPECT_EQ(chunks[2].sequences[0].row, 10);
  EXPECT_EQ(chunks[2].sequences[1].row, 12);
  // A part keeps what else is asked; a whole sequence is not copied.
  EXPECT_EQ(chunks[0].sequences[0].sequence->lists, sequences[0].lists);
  EXPECT_EQ(chunks[3].sequences[0].sequence, &sequences[3]);

  chunks = ChunkRows(placed, 100, &cut);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_THAT(chunks[0].of, ElementsAre(0, 2, 3));
  EXPECT_EQ(chunks[0].sequences[0].sequence, &sequences[0]);
  EXPECT_THAT(ChunkRows({placed[1]}, 1, &cut), IsEmpty());
}

}  // namespace
}  // namespace cupola::analysis
