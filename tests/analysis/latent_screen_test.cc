#include "server/analysis/latent_screen.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "c10/core/InferenceMode.h"
#include "gtest/gtest.h"
#include "server/analysis/line_distance.h"
#include "server/dictionary/weights.h"
#include "tests/dictionary/dictionary_files.h"

namespace cupola::analysis {
namespace {

using dictionary::testing::RandomRows;

constexpr int64_t kWidth = 24, kLatents = 4096, kActive = 8;
constexpr int64_t kPoints = 41;
// Of the largest activation: what the two ways' sums may differ by.
constexpr float kTolerance = 5e-5f;

absl::Status Go() { return absl::OkStatus(); }

// A TopK dictionary and curves of its inputs.
class LatentScreenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Make([](dictionary::testing::TensorMap*) {});
  }

  // change: of its tensors before they are loaded.
  template <typename Change>
  void Make(const Change& change) {
    const c10::InferenceMode inference;
    model::Json cfg = dictionary::testing::Config("topk");
    cfg["d_sae"] = kLatents;
    auto tensors = dictionary::testing::RandomTensors(cfg, 3);
    change(&tensors);
    auto source = dictionary::DictionarySource::Open(
        dictionary::testing::WriteDictionary(cfg, tensors), {},
        dictionary::testing::SmallModel());
    ASSERT_TRUE(source.ok()) << source.status();
    auto loaded =
        dictionary::Dictionary::Load(*source, dictionary::Half::kIn, at::kCPU);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    dictionary_ = *std::move(loaded);
    columns_ = dictionary_->weights().encoder.Weight().t().contiguous();
  }

  // A bent curve through x: [kPoints, kWidth].
  at::Tensor Curve(int seed, float bend) const {
    const at::Tensor t = at::linspace(0, 1, kPoints).unsqueeze(1);
    const at::Tensor ends = RandomRows(3, kWidth, seed);
    return ends[0] + t * ends[1] + bend * t * t * ends[2];
  }

  // Segments between anchors, reading latents that are somewhere among the
  // leading ones, and two that are not.
  std::vector<ScreenedSegment> Segments(const at::Tensor& rows,
                                        float share) const {
    auto acts = dictionary_->EncodeDense(rows);
    std::vector<int32_t> latents;
    const at::Tensor ever = acts->gt(0).any(0);
    for (int64_t i = 0; i < kLatents; ++i) {
      if (ever[i].item<bool>() || i == 5 || i == 900) {
        latents.push_back(static_cast<int32_t>(i));
      }
    }
    const std::vector<int64_t> split = SplitCurve(
        rows.const_data_ptr<float>(), rows.size(0), kWidth, share, 2);
    std::vector<ScreenedSegment> segments;
    for (size_t i = 0; i + 1 < split.size(); ++i) {
      const bool last = i + 2 == split.size();
      segments.push_back(
          {split[i], split[i + 1] + last, split[i], split[i + 1], latents});
    }
    return segments;
  }

  // The screened values beside those of the whole dictionary.
  void ExpectSame(const at::Tensor& rows,
                  const std::vector<ScreenedSegment>& segments,
                  ScreenCounts* counts) const {
    const LatentScreen screen(*dictionary_, columns_);
    auto found = screen.Activations(rows, segments, Go, counts);
    ASSERT_TRUE(found.ok()) << found.status();
    auto whole = dictionary_->EncodeDense(rows);
    ASSERT_TRUE(whole.ok()) << whole.status();
    const float scale = whole->max().item<float>();
    const float* value = found->const_data_ptr<float>();
    for (const ScreenedSegment& segment : segments) {
      for (int64_t row = segment.begin; row < segment.end; ++row) {
        for (int32_t latent : segment.latents) {
          const float expected = (*whole)[row][latent].item<float>();
          ASSERT_NEAR(*value, expected, kTolerance * scale)
              << "row " << row << ", latent " << latent;
          ASSERT_EQ(*value > 0, expected > 0)
              << "row " << row << ", latent " << latent;
          ++value;
        }
      }
    }
    EXPECT_EQ(value - found->const_data_ptr<float>(), found->numel());
  }

  std::shared_ptr<const dictionary::Dictionary> dictionary_;
  at::Tensor columns_;
};

TEST_F(LatentScreenTest, AgreesAlongCurves) {
  const c10::InferenceMode inference;
  ScreenCounts counts;
  for (int seed = 0; seed < 6; ++seed) {
    const at::Tensor rows = Curve(100 + seed, 0.3f);
    ExpectSame(rows, Segments(rows, 0.05f), &counts);
  }
  EXPECT_GT(counts.SkippedShare(), 0.4);
}

TEST_F(LatentScreenTest, AgreesWhereTheBoundIsUseless) {
  const c10::InferenceMode inference;
  const at::Tensor rows = RandomRows(kPoints, kWidth, 8);
  ScreenCounts counts;
  ExpectSame(rows, Segments(rows, 1e6f), &counts);
  EXPECT_EQ(counts.SkippedShare(), 0);
}

TEST_F(LatentScreenTest, AgreesAroundOneAnchor) {
  const c10::InferenceMode inference;
  const at::Tensor centre = RandomRows(1, kWidth, 9);
  const at::Tensor rows =
      at::cat({centre + 0.01 * RandomRows(20, kWidth, 10), centre});
  std::vector<ScreenedSegment> segments = {{0, 20, 20, 20, {}}};
  auto acts = dictionary_->EncodeDense(rows);
  for (int64_t i = 0; i < kLatents; ++i) {
    if ((*acts)[3][i].item<float>() > 0) {
      segments[0].latents.push_back(static_cast<int32_t>(i));
    }
  }
  ScreenCounts counts;
  ExpectSame(rows, segments, &counts);
  EXPECT_GT(counts.SkippedShare(), 0.8);
}

// Latents that are copies of each other tie at every row, also for the last
// place: the lowest index wins.
TEST_F(LatentScreenTest, TiesGoToTheLowestIndex) {
  Make([](dictionary::testing::TensorMap* tensors) {
    at::Tensor& encoder = tensors->at("W_enc");
    at::Tensor& bias = tensors->at("b_enc");
    for (int64_t i = 0; i < kLatents; ++i) {
      encoder.select(1, i).copy_(encoder.select(1, i / 3 * 3));
      bias.select(0, i).copy_(bias.select(0, i / 3 * 3));
    }
  });
  const c10::InferenceMode inference;
  ScreenCounts counts;
  for (int seed = 0; seed < 4; ++seed) {
    const at::Tensor rows = Curve(200 + seed, 0.2f);
    // Every copy of every latent that wins anywhere is read.
    std::vector<ScreenedSegment> segments = Segments(rows, 0.05f);
    for (ScreenedSegment& segment : segments) {
      std::vector<int32_t> all;
      for (int32_t latent : segment.latents) {
        for (int32_t copy = latent / 3 * 3; copy < latent / 3 * 3 + 3; ++copy) {
          if (copy < kLatents && (all.empty() || all.back() < copy)) {
            all.push_back(copy);
          }
        }
      }
      segment.latents = all;
    }
    ExpectSame(rows, segments, &counts);
  }
  EXPECT_GT(counts.SkippedShare(), 0);
}

// Thousands of latents that differ by less than the bound can tell: none may be
// skipped, and the answers stay.
TEST_F(LatentScreenTest, NearTiesAreComputed) {
  Make([](dictionary::testing::TensorMap* tensors) {
    at::Tensor& encoder = tensors->at("W_enc");
    const at::Tensor first = encoder.select(1, 0).clone();
    encoder.copy_(first.unsqueeze(1) +
                  1e-3 * encoder * at::linspace(0, 1, kLatents));
    tensors->at("b_enc").zero_();
  });
  const c10::InferenceMode inference;
  const at::Tensor rows = Curve(300, 0.1f).abs() * columns_[0].sign();
  const LatentScreen screen(*dictionary_, columns_);
  const std::vector<ScreenedSegment> segments = Segments(rows, 0.5f);
  ScreenCounts counts;
  ASSERT_TRUE(screen.Activations(rows, segments, Go, &counts).ok());
  EXPECT_LT(counts.SkippedShare(), 0.5);
}

TEST_F(LatentScreenTest, StopsWhenNobodyWaits) {
  const c10::InferenceMode inference;
  const at::Tensor rows = Curve(1, 0.1f);
  const LatentScreen screen(*dictionary_, columns_);
  ScreenCounts counts;
  const auto stop = [] { return absl::CancelledError("enough"); };
  EXPECT_EQ(screen.Activations(rows, Segments(rows, 0.1f), stop, &counts)
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

TEST_F(LatentScreenTest, RefusesRowsThatAreNotFinite) {
  const c10::InferenceMode inference;
  at::Tensor rows = Curve(1, 0.1f);
  const std::vector<ScreenedSegment> segments = Segments(rows, 0.1f);
  rows[7][2] = NAN;
  const LatentScreen screen(*dictionary_, columns_);
  ScreenCounts counts;
  const auto found = screen.Activations(rows, segments, Go, &counts);
  EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cupola::analysis
