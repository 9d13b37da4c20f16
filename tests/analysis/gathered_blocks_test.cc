#include "server/analysis/gathered_blocks.h"

#include <cstring>
#include <vector>

#include "c10/core/InferenceMode.h"
#include "gtest/gtest.h"
#include "server/analysis/row_products.h"

namespace cupola::analysis {
namespace {

constexpr int64_t kOut = 50, kIn = 60, kTokens = 5, kWide = 7, kHigh = 6;

// In float64, from the definition.
at::Tensor Expected(const BlockTables& tables, const at::Tensor& outs,
                    const at::Tensor& ins, const at::Tensor& gradients,
                    const at::Tensor& scale) {
  const int64_t hidden = tables.out.size(1);
  at::Tensor blocks =
      at::zeros({outs.size(0), outs.size(1), ins.size(1)}, at::kDouble);
  for (int64_t t = 0; t < outs.size(0); ++t) {
    for (int64_t i = 0; i < outs.size(1); ++i) {
      for (int64_t j = 0; j < ins.size(1); ++j) {
        const int64_t out = outs[t][i].item<int64_t>();
        const int64_t in = ins[t][j].item<int64_t>();
        if (out < 0 || in < 0) continue;
        const at::Tensor z =
            (tables.in[in].to(at::kDouble) * gradients[t].to(at::kDouble))
                .view({-1, hidden})
                .sum(0);
        at::Tensor sum = (tables.out[out].to(at::kDouble) * z).sum();
        if (scale.defined()) sum = sum * scale[t][0].to(at::kDouble);
        blocks[t][i][j] = sum;
      }
    }
  }
  return blocks;
}

struct Case {
  int64_t hidden;
  bool gated, scaled;
};

class GatheredBlocksTest : public ::testing::TestWithParam<Case> {
 protected:
  GatheredBlocksTest() {
    at::manual_seed(4);
    const int64_t width = GetParam().hidden * (GetParam().gated ? 2 : 1);
    tables_ = {at::randn({kOut, GetParam().hidden}), at::randn({kIn, width})};
    outs_ = at::randint(kOut, {kTokens, kHigh}, at::kLong);
    ins_ = at::randint(kIn, {kTokens, kWide}, at::kLong);
    gradients_ = at::randn({kTokens, width});
    if (GetParam().scaled) scale_ = at::randn({kTokens, 1});
  }

  void ExpectNear(const at::Tensor& found, const at::Tensor& expected) const {
    EXPECT_TRUE(at::allclose(found.to(at::kDouble), expected, 1e-5,
                             1e-6 * static_cast<double>(GetParam().hidden)));
  }

  const c10::InferenceMode inference_;
  BlockTables tables_;
  at::Tensor outs_, ins_, gradients_, scale_;
};

TEST_P(GatheredBlocksTest, AreTheDefinition) {
  const at::Tensor expected =
      Expected(tables_, outs_, ins_, gradients_, scale_);
  ExpectNear(GatheredBlocks(tables_, outs_, ins_, gradients_, scale_),
             expected);
}

TEST_P(GatheredBlocksTest, PaddingIsZero) {
  outs_[1].narrow(0, 4, 2).fill_(-1);
  outs_[3].fill_(-1);
  ins_[2].narrow(0, 1, 6).fill_(-1);
  const at::Tensor found =
      GatheredBlocks(tables_, outs_, ins_, gradients_, scale_);
  ExpectNear(found, Expected(tables_, outs_, ins_, gradients_, scale_));
  EXPECT_TRUE(found[3].eq(0).all().item<bool>());
  EXPECT_TRUE(found[2].narrow(1, 1, 6).eq(0).all().item<bool>());
}

TEST_P(GatheredBlocksTest, NothingIsNothing) {
  EXPECT_EQ(GatheredBlocks(tables_, outs_.narrow(0, 0, 0), ins_.narrow(0, 0, 0),
                           gradients_.narrow(0, 0, 0), {})
                .numel(),
            0);
  EXPECT_EQ(
      GatheredBlocks(tables_, outs_, ins_.narrow(1, 0, 0), gradients_, scale_)
          .numel(),
      0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GatheredBlocksTest,
                         ::testing::Values(Case{64, false, false},
                                           Case{96, true, true},
                                           Case{37, false, true},
                                           Case{13, true, false},
                                           Case{512, true, true}));

// Equal rows have equal products, whatever they stand beside.
TEST(RowProductsTest, DependOnTheirRowsAlone) {
  at::manual_seed(1);
  for (int64_t d : {5, 16, 77, 512}) {
    const at::Tensor a = at::randn({11, d}), b = at::randn({9, d});
    std::vector<const float*> rows_a, rows_b;
    for (int64_t i = 0; i < 11; ++i) {
      rows_a.push_back(a.const_data_ptr<float>() + i * d);
    }
    for (int64_t i = 0; i < 9; ++i) {
      rows_b.push_back(b.const_data_ptr<float>() + i * d);
    }
    std::vector<float> all(11 * 9);
    MultiplyRows(rows_a.data(), 11, rows_b.data(), 9, d, all.data(), 9);
    const at::Tensor exact = at::mm(a.to(at::kDouble), b.to(at::kDouble).t());
    const at::Tensor most =
        at::mm(a.to(at::kDouble).abs(), b.to(at::kDouble).abs().t()) *
        RowProductError(d);
    for (int64_t i = 0; i < 11; ++i) {
      for (int64_t j = 0; j < 9; ++j) {
        float alone = 0;
        MultiplyRows(&rows_a[i], 1, &rows_b[j], 1, d, &alone, 1);
        EXPECT_EQ(std::memcmp(&alone, &all[i * 9 + j], sizeof(alone)), 0);
        EXPECT_LE(std::abs(alone - exact[i][j].item<double>()),
                  most[i][j].item<double>());
      }
    }
  }
}

}  // namespace
}  // namespace cupola::analysis
