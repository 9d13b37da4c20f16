#include "server/dictionary/dictionary.h"

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/dictionary/activation.h"
#include "server/dictionary/weights.h"
#include "tests/dictionary/dictionary_files.h"
#include "tests/dictionary/naive_dictionary.h"

namespace cupola::dictionary {
namespace {

using model::Json;
using testing::Config;
using ::testing::HasSubstr;
using testing::NaiveDictionary;
using testing::RandomRows;
using testing::RandomTensors;
using testing::TensorMap;
using testing::Vector;

// float32 sums of 24 products: 24 * 2^-24 of their magnitudes, which stay below
// 20; matching pursuit adds up to 24 rounds of them.
constexpr double kTolerance = 1e-4;

std::shared_ptr<const Dictionary> Load(const Json& cfg,
                                       const TensorMap& tensors,
                                       const Overrides& overrides = {},
                                       Half half = Half::kIn) {
  const auto source = DictionarySource::Open(
      testing::WriteDictionary(cfg, tensors), overrides, testing::SmallModel());
  EXPECT_TRUE(source.ok()) << source.status();
  const auto dictionary = Dictionary::Load(*source, half, at::kCPU);
  EXPECT_TRUE(dictionary.ok()) << dictionary.status();
  return *dictionary;
}

std::shared_ptr<const Dictionary> Random(const std::string& architecture,
                                         int seed = 1) {
  const Json cfg = Config(architecture);
  return Load(cfg, RandomTensors(cfg, seed));
}

SparseRows Encode(const Dictionary& dictionary, const at::Tensor& x,
                  const EncodeOptions& options = {}) {
  absl::StatusOr<SparseRows> rows = dictionary.Encode(x, options);
  EXPECT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE(CheckRows(*rows, dictionary.d_sae()).ok());
  return *std::move(rows);
}

// float32 [rows, d_sae] of a CSR; also checks that indices ascend.
at::Tensor Dense(const SparseRows& rows) {
  const int64_t n = rows.indptr.numel() - 1;
  at::Tensor dense = at::zeros({n, rows.columns});
  for (int64_t row = 0; row < n; ++row) {
    int64_t previous = -1;
    for (int64_t i = rows.indptr[row].item<int64_t>();
         i < rows.indptr[row + 1].item<int64_t>(); ++i) {
      const int64_t latent = rows.indices[i].item<int64_t>();
      EXPECT_GT(latent, previous);
      previous = latent;
      dense[row][latent] = rows.values[i];
    }
  }
  return dense;
}

Vector RowOf(const at::Tensor& matrix, int64_t row) {
  const at::Tensor wide = matrix[row].to(at::kDouble).contiguous();
  return Vector(wide.const_data_ptr<double>(),
                wide.const_data_ptr<double>() + wide.numel());
}

double MaxDifference(const Vector& a, const Vector& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(a[i] - b[i]));
  }
  return worst;
}

bool Near(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && at::allclose(a, b, 1e-5, 1e-5);
}

EncodeOptions Latents(std::vector<int32_t> latents) {
  EncodeOptions options;
  options.latents = std::move(latents);
  return options;
}

using Case = std::tuple<const char*, const char*, bool>;
class NaiveParityTest : public ::testing::TestWithParam<Case> {};

TEST_P(NaiveParityTest, EncodesAndDecodes) {
  const auto [architecture, normalize, apply_b_dec] = GetParam();
  Json cfg = Config(architecture);
  cfg["normalize_activations"] = normalize;
  if (cfg["apply_b_dec_to_input"] == true) {
    cfg["apply_b_dec_to_input"] = apply_b_dec;
  }
  const TensorMap tensors = RandomTensors(cfg, 5);
  const NaiveDictionary naive(cfg, tensors);
  const auto dictionary = Load(cfg, tensors);
  const at::Tensor x = RandomRows(9, 24, 6) * 2 + 0.3;
  const SparseRows features = Encode(*dictionary, x);
  const at::Tensor dense = Dense(features);
  EXPECT_TRUE(at::equal(*dictionary->EncodeDense(x), dense));
  const at::Tensor out = *dictionary->Decode(features, x);
  int64_t active = 0;
  for (int64_t row = 0; row < x.size(0); ++row) {
    const Vector input = RowOf(x, row), acts = RowOf(dense, row);
    EXPECT_LT(MaxDifference(acts, naive.Encode(input)), kTolerance);
    EXPECT_LT(MaxDifference(RowOf(out, row), naive.Decode(acts, input)),
              kTolerance);
    active +=
        std::count_if(acts.begin(), acts.end(), [](double v) { return v > 0; });
  }
  EXPECT_GT(active, x.size(0));
  EXPECT_LT(active, x.size(0) * 80);
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, NaiveParityTest,
    ::testing::Combine(
        ::testing::Values("standard", "gated", "jumprelu", "topk",
                          "matching_pursuit", "transcoder", "skip_transcoder",
                          "jumprelu_transcoder", "jumprelu_skip_transcoder",
                          "topk_transcoder", "topk_skip_transcoder"),
        ::testing::Values("none", "constant_norm_rescale", "layer_norm"),
        ::testing::Bool()));

// So many latents that few of them are computed in full, where the processor
// has bfloat16 tiles (encoder_screen.h).
TEST(DictionaryTest, WideTopK) {
  Json cfg = Config("topk");
  cfg["d_sae"] = 12288;
  TensorMap tensors = RandomTensors(cfg, 6);
  const NaiveDictionary naive(cfg, tensors);
  const auto dictionary = Load(cfg, tensors);
  const at::Tensor x = RandomRows(20, 24, 3);
  const at::Tensor dense = Dense(Encode(*dictionary, x));
  EncodeOptions few, some;
  few.top_k = 3;
  few.min_activation = 0.5f;
  const at::Tensor largest = Dense(Encode(*dictionary, x, few));
  // Latents that are asked for compete with all the others.
  for (int32_t i = 0; i < 12288; i += 3) some.latents.push_back(i);
  const at::Tensor third = Encode(*dictionary, x, some).indices;
  for (int64_t row = 0; row < 20; ++row) {
    const Vector expected = naive.Encode(RowOf(x, row));
    EXPECT_LT(MaxDifference(RowOf(dense, row), expected), kTolerance) << row;
  }
  EXPECT_TRUE(at::equal(largest, KeepTopK(dense, 3) * (dense > 0.5f)));
  const at::Tensor places = dense.nonzero().select(1, 1);
  EXPECT_EQ(third.numel(), (places % 3 == 0).sum().item<int64_t>());
}

// Where no latent stands out all of them are computed, and the first ones win.
TEST(DictionaryTest, WideTopKOfEqualLatents) {
  Json cfg = Config("topk");
  cfg["d_sae"] = 12288;
  TensorMap tensors = RandomTensors(cfg, 6);
  tensors["W_enc"].copy_(tensors["W_enc"].narrow(1, 0, 1).clone());
  tensors["b_enc"].fill_(50);  // all are positive
  const auto dictionary = Load(cfg, tensors);
  for (int64_t rows : {2, 300}) {
    const SparseRows features = Encode(*dictionary, RandomRows(rows, 24, 3));
    EXPECT_TRUE(at::equal(features.indices.view({rows, 8}),
                          at::arange(8, at::kInt).expand({rows, 8})));
  }
}

TEST(DictionaryTest, TopKRescaledByDecoderNorm) {
  Json cfg = Config("topk");
  cfg["rescale_acts_by_decoder_norm"] = true;
  TensorMap tensors = RandomTensors(cfg, 2);
  tensors["W_dec"].narrow(0, 0, 40).mul_(3);  // changes who wins
  tensors["W_dec"][50].zero_();
  const NaiveDictionary naive(cfg, tensors);
  const auto dictionary = Load(cfg, tensors);
  const at::Tensor x = RandomRows(9, 24, 3);
  const SparseRows features = Encode(*dictionary, x);
  const at::Tensor out = *dictionary->Decode(features, {});
  for (int64_t row = 0; row < 9; ++row) {
    const Vector input = RowOf(x, row), acts = RowOf(Dense(features), row);
    EXPECT_EQ(acts[50], 0);
    EXPECT_LT(MaxDifference(acts, naive.Encode(input)), kTolerance);
    EXPECT_LT(MaxDifference(RowOf(out, row), naive.Decode(acts, input)),
              kTolerance);
  }
}

TEST(DictionaryTest, FoldingScalesActivationsAndKeepsTheOutput) {
  Overrides fold;
  fold.fold_w_dec_norm = true;
  for (const char* architecture :
       {"standard", "gated", "jumprelu", "skip_transcoder"}) {
    const Json cfg = Config(architecture);
    TensorMap tensors = RandomTensors(cfg, 2);
    tensors["W_dec"][7].zero_();
    const auto plain = Load(cfg, tensors), folded = Load(cfg, tensors, fold);
    const at::Tensor x = RandomRows(20, 24, 3);
    const at::Tensor norms = tensors["W_dec"].norm(2, {1}).clamp_min(1e-8);
    EXPECT_TRUE(Near(*folded->EncodeDense(x), *plain->EncodeDense(x) * norms))
        << architecture;
    EXPECT_TRUE(Near(*folded->Decode(Encode(*folded, x), x),
                     *plain->Decode(Encode(*plain, x), x)))
        << architecture;
  }
}

TEST(DictionaryTest, ExpectedAverageFactorIsFolded) {
  // In the scaled space the dictionary is the plain one.
  constexpr double kFactor = 0.25;
  for (const char* architecture : {"standard", "gated", "jumprelu", "topk"}) {
    Json cfg = Config(architecture);
    const TensorMap tensors = RandomTensors(cfg, 2);
    const auto plain = Load(cfg, tensors);
    cfg["normalize_activations"] = "expected_average_only_in";
    cfg["norm_scaling_factor"] = kFactor;
    const auto scaled = Load(cfg, tensors);
    const at::Tensor x = RandomRows(20, 24, 3);
    const SparseRows features = Encode(*plain, x);
    EXPECT_TRUE(Near(Dense(Encode(*scaled, x / kFactor)), Dense(features)));
    EXPECT_TRUE(Near(*scaled->Decode(features, {}) * kFactor,
                     *plain->Decode(features, {})));
  }
}

TEST(DictionaryTest, FinetuningFactorScalesTheDecoder) {
  Json cfg = Config("standard");
  TensorMap tensors = RandomTensors(cfg, 2);
  const auto plain = Load(cfg, tensors);
  cfg["finetuning_scaling_factor"] = true;
  tensors["scaling_factor"] = at::full({100}, 2.0f);
  const auto tuned = Load(cfg, tensors);
  const at::Tensor x = RandomRows(5, 24, 3);
  const SparseRows features = Encode(*plain, x);
  EXPECT_TRUE(at::equal(Dense(Encode(*tuned, x)), Dense(features)));
  EXPECT_TRUE(Near(*tuned->Decode(features, {}) - tensors["b_dec"],
                   2 * (*plain->Decode(features, {}) - tensors["b_dec"])));
}

TEST(DictionaryTest, PairHalvesAreDictionariesOfTheirOwn) {
  const TensorMap tensors = testing::PairTensors(4);
  for (Half half : {Half::kIn, Half::kOut}) {
    const std::string suffix = half == Half::kOut ? "_out" : "";
    Json cfg = Config("topk");
    cfg["apply_b_dec_to_input"] = false;
    TensorMap own;
    for (const char* name : {"W_enc", "b_enc", "W_dec", "b_dec"}) {
      own[name] = tensors.at(std::string("_") + name + suffix);
    }
    const auto pair = Load(testing::PairConfig(), tensors, {}, half);
    const auto single = Load(cfg, own);
    const at::Tensor x = RandomRows(7, 24, 8);
    const SparseRows features = Encode(*pair, x);
    EXPECT_TRUE(at::equal(Dense(features), Dense(Encode(*single, x))));
    EXPECT_TRUE(
        at::equal(*pair->Decode(features, {}), *single->Decode(features, {})));
    EXPECT_EQ(pair->half(), half);
  }
}

TEST(DictionaryTest, OptionsNarrowTheFullAnswer) {
  for (const char* architecture :
       {"standard", "gated", "jumprelu", "topk", "matching_pursuit"}) {
    const auto dictionary = Random(architecture);
    const at::Tensor x = RandomRows(40, 24, 3) * 2;
    const at::Tensor full = Dense(Encode(*dictionary, x));

    EncodeOptions floor;
    floor.min_activation =
        full.masked_select(full.gt(0)).median().item<float>();
    EXPECT_TRUE(at::equal(Dense(Encode(*dictionary, x, floor)),
                          full * full.gt(floor.min_activation)))
        << architecture;

    EncodeOptions best;
    best.top_k = 3;
    const at::Tensor kept = Dense(Encode(*dictionary, x, best));
    EXPECT_TRUE(at::equal(kept, KeepTopK(full, 3))) << architecture;

    // Few latents are gathered, many are narrowed from the whole.
    std::vector<int32_t> many;
    for (int32_t latent = 1; latent < 100; latent += 2) many.push_back(latent);
    for (const std::vector<int32_t>& latents :
         {std::vector<int32_t>{3, 77, 99}, many}) {
      const at::Tensor where = at::zeros({100}).index_fill_(
          0, at::tensor(latents, at::kInt).to(at::kLong), 1);
      EncodeOptions options = Latents(latents);
      EXPECT_TRUE(Near(Dense(Encode(*dictionary, x, options)), full * where))
          << architecture;
      options.top_k = 1;
      EXPECT_TRUE(Near(Dense(Encode(*dictionary, x, options)),
                       KeepTopK(full * where, 1)))
          << architecture;
    }
  }
}

TEST(DictionaryTest, TiedLatentsGoToTheLowestIndex) {
  const Json cfg = Config("topk");
  TensorMap tensors = RandomTensors(cfg, 2);
  tensors["W_enc"].zero_();
  tensors["b_enc"].fill_(1);
  tensors["b_enc"][90] = 2;
  const auto dictionary = Load(cfg, tensors);
  const SparseRows rows = Encode(*dictionary, RandomRows(1, 24, 3));
  EXPECT_TRUE(
      at::equal(rows.indices, at::tensor({0, 1, 2, 3, 4, 5, 6, 90}, at::kInt)));
}

TEST(DictionaryTest, FewerThanKWhereTheRestIsNotPositive) {
  const Json cfg = Config("topk");
  TensorMap tensors = RandomTensors(cfg, 2);
  tensors["W_enc"].zero_();
  tensors["b_enc"].fill_(-1);
  tensors["b_enc"][4] = 2;
  tensors["b_enc"][5] = 0;
  const SparseRows rows = Encode(*Load(cfg, tensors), RandomRows(2, 24, 3));
  EXPECT_TRUE(at::equal(rows.indptr, at::tensor({0, 1, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(rows.indices, at::tensor({4, 4}, at::kInt)));
}

TEST(DictionaryTest, ManyRowsAreTheSameAsFew) {
  // Chunks hold at least 32 rows: 1000 rows make several products.
  Json cfg = Config("topk");
  const auto dictionary = Random("topk");
  const at::Tensor x = RandomRows(1000, 24, 3);
  const SparseRows all = Encode(*dictionary, x);
  EXPECT_EQ(all.indptr.numel(), 1001);
  const at::Tensor dense = Dense(all);
  for (int64_t first : {0, 31, 500, 999}) {
    EXPECT_TRUE(Near(Dense(Encode(*dictionary, x.narrow(0, first, 1))),
                     dense.narrow(0, first, 1)));
  }
}

TEST(DictionaryTest, NoRowsAreFine) {
  for (const char* architecture : {"standard", "topk", "matching_pursuit"}) {
    const auto dictionary = Random(architecture);
    const SparseRows rows = Encode(*dictionary, at::zeros({0, 24}));
    EXPECT_EQ(rows.indptr.numel(), 1);
    EXPECT_EQ(rows.indices.numel(), 0);
    EXPECT_EQ(dictionary->Decode(rows, {})->size(0), 0);
    EXPECT_EQ(
        Encode(*dictionary, at::zeros({0, 24}), Latents({1, 2})).indptr.numel(),
        1);
  }
}

TEST(DictionaryTest, DecodesManyEntriesByAProduct) {
  const auto dictionary = Random("standard");
  SparseRows rows;
  rows.columns = 100;
  rows.indptr = at::arange(0, 2001, 100, at::kLong);
  rows.indices = at::arange(100, at::kInt).repeat({20});
  rows.values = RandomRows(20, 100, 5).view({-1}).contiguous();
  const at::Tensor expected =
      at::mm(rows.values.view({20, 100}), dictionary->weights().W_dec) +
      dictionary->weights().b_dec;
  EXPECT_TRUE(
      at::allclose(*dictionary->Decode(rows, {}), expected, 1e-4, 1e-4));
}

TEST(DictionaryTest, OtherInputTypesAreConverted) {
  const auto dictionary = Random("jumprelu");
  const at::Tensor x = RandomRows(5, 24, 3).to(at::kBFloat16);
  EXPECT_TRUE(at::equal(Dense(Encode(*dictionary, x)),
                        Dense(Encode(*dictionary, x.to(at::kFloat)))));
  const at::Tensor strided = RandomRows(24, 5, 3).t();
  EXPECT_TRUE(at::equal(Dense(Encode(*dictionary, strided)),
                        Dense(Encode(*dictionary, strided.contiguous()))));
}

TEST(DictionaryTest, Bfloat16RunsEveryArchitecture) {
  Overrides overrides;
  overrides.dtype = at::kBFloat16;
  for (const char* architecture :
       {"standard", "gated", "jumprelu", "topk", "matching_pursuit",
        "jumprelu_skip_transcoder"}) {
    const Json cfg = Config(architecture);
    const TensorMap tensors = RandomTensors(cfg, 2);
    const auto exact = Load(cfg, tensors),
               coarse = Load(cfg, tensors, overrides);
    const at::Tensor x = RandomRows(20, 24, 3);
    const SparseRows features = Encode(*exact, x);
    ASSERT_EQ(Encode(*coarse, x).values.scalar_type(), at::kFloat);
    // 8 bits of mantissa: a hundredth of the values' scale.
    const at::Tensor out = *exact->Decode(features, x);
    EXPECT_LT((*coarse->Decode(features, x) - out).abs().max().item<float>(),
              0.01 * out.abs().max().item<float>())
        << architecture;
    EXPECT_LT(coarse->resident_bytes(), exact->resident_bytes());
  }
}

TEST(DictionaryTest, ResidentBytesAreTheWeightsOnce) {
  for (const char* architecture :
       {"standard", "gated", "jumprelu", "topk", "skip_transcoder"}) {
    Json cfg = Config(architecture);
    const auto dictionary = Random(architecture);
    const int64_t weights = dictionary->source().WeightBytes();
    EXPECT_GE(dictionary->resident_bytes(), weights) << architecture;
    // oneDNN pads these small shapes to its blocks.
    EXPECT_LE(dictionary->resident_bytes(), weights * 3 / 2) << architecture;
  }
  const auto tied = Random("matching_pursuit");
  EXPECT_EQ(tied->resident_bytes(), 4 * (100 * 24 + 24));
}

TEST(DictionaryTest, KeptColumnsAreCounted) {
  const auto dictionary = Random("standard");
  const int64_t before = dictionary->resident_bytes();
  Encode(*dictionary, RandomRows(2, 24, 1), Latents({5, 6}));
  EXPECT_EQ(dictionary->resident_bytes(), before + 2 * 24 * 4);
  // The next ones do not fit beside them (3 columns of 100): they replace them.
  Encode(*dictionary, RandomRows(2, 24, 1), Latents({7, 8}));
  EXPECT_EQ(dictionary->resident_bytes(), before + 2 * 24 * 4);
}

TEST(DictionaryTest, BadInputIsRefused) {
  const auto dictionary = Random("topk");
  const auto refused = [&](const at::Tensor& x, const std::string& part) {
    const absl::Status status = dictionary->Encode(x, {}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_FALSE(dictionary->EncodeDense(x).ok());
  };
  refused(at::zeros({3, 25}), "24");
  refused(at::zeros({24}), "24");
  refused(at::Tensor(), "24");
  refused(at::zeros({3, 24}, at::kInt), "Int");
  at::Tensor x = at::zeros({3, 24});
  x[2][5] = std::numeric_limits<float>::quiet_NaN();
  refused(x, "row 2");
  x[2][5] = -std::numeric_limits<float>::infinity();
  refused(x, "row 2");
}

TEST(DictionaryTest, OverflowAndDivisionByZeroAreErrors) {
  const at::Tensor huge = at::full({2, 24}, 3e38f);
  for (const char* architecture : {"standard", "topk"}) {
    Json cfg = Config(architecture);
    TensorMap tensors = RandomTensors(cfg, 1);
    tensors["W_enc"].fill_(2);
    const absl::Status status = Load(cfg, tensors)->Encode(huge, {}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("row 0"));
  }
  Json cfg = Config("standard");
  cfg["normalize_activations"] = "constant_norm_rescale";
  const absl::Status status =
      Load(cfg, RandomTensors(cfg, 1))->Encode(at::zeros({2, 24}), {}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
}

TEST(DictionaryTest, BadOptionsAreRefused) {
  const auto dictionary = Random("standard");
  const at::Tensor x = RandomRows(2, 24, 1);
  const auto refused = [&](const EncodeOptions& options,
                           const std::string& part) {
    const absl::Status status = dictionary->Encode(x, options).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  };
  refused(Latents({100}), "99");
  refused(Latents({-1}), "-1");
  refused(Latents({5, 5}), "ascending");
  refused(Latents({5, 3}), "ascending");
  EncodeOptions options;
  options.top_k = -1;
  refused(options, "top_k");
  options = {};
  for (float bad : {-1.0f, std::numeric_limits<float>::quiet_NaN(),
                    std::numeric_limits<float>::infinity()}) {
    options.min_activation = bad;
    refused(options, "min_activation");
  }
}

TEST(DictionaryTest, DecodeRefusesWhatIsNoCsr) {
  const auto dictionary = Random("standard");
  const SparseRows good = Encode(*dictionary, RandomRows(3, 24, 1));
  const auto refused = [&](SparseRows bad, const std::string& part) {
    const absl::Status status = dictionary->Decode(bad, {}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  };
  SparseRows bad = good;
  bad.columns = 99;
  refused(bad, "99");
  bad = good;
  bad.indices = good.indices.clone();
  bad.indices[0] = 100;
  refused(bad, "100");
  bad.indices[0] = -1;
  refused(bad, "-1");
  bad = good;
  bad.indices = good.indices.to(at::kLong);
  refused(bad, "int32");
  bad = good;
  bad.values = good.values.narrow(0, 1, 2).contiguous();
  refused(bad, "values");
  bad = good;
  bad.values = good.values.clone();
  bad.values[0] = std::numeric_limits<float>::quiet_NaN();
  refused(bad, "finite");
  bad = good;
  bad.indptr = good.indptr.clone();
  bad.indptr[1] = good.indices.numel() + 5;
  refused(bad, "indptr");
  bad.indptr = at::zeros({0}, at::kLong);
  refused(bad, "indptr");
  bad = good;
  bad.values = at::Tensor();
  refused(bad, "vectors");
}

TEST(DictionaryTest, DecodeAsksForTheInputItNeeds) {
  const auto skip = Random("skip_transcoder");
  ASSERT_TRUE(skip->DecodeNeedsInput());
  const at::Tensor x = RandomRows(3, 24, 1);
  const SparseRows features = Encode(*skip, x);
  EXPECT_TRUE(absl::IsInvalidArgument(skip->Decode(features, {}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      skip->Decode(features, RandomRows(2, 24, 1)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      skip->Decode(features, RandomRows(3, 23, 1)).status()));
  EXPECT_FALSE(Random("transcoder")->DecodeNeedsInput());
  EXPECT_FALSE(Random("standard")->DecodeNeedsInput());
}

// The operators that serve other devices, run here on the CPU.
TEST(ActivationTest, KeepTopKBreaksTiesByIndex) {
  const at::Tensor pre = at::tensor({1.f, 3.f, 2.f, 2.f, 2.f, -1.f,  //
                                     -1.f, -1.f, 0.f, -2.f, 5.f, -1.f})
                             .view({2, 6});
  EXPECT_TRUE(
      at::equal(KeepTopK(pre, 3), at::tensor({0.f, 3.f, 2.f, 2.f, 0.f, 0.f,  //
                                              0.f, 0.f, 0.f, 0.f, 5.f, 0.f})
                                      .view({2, 6})));
  EXPECT_TRUE(at::equal(KeepTopK(pre, 6), at::relu(pre)));
}

TEST(ActivationTest, OperatorsAgreeWithTheKernels) {
  for (const char* architecture : {"standard", "gated", "jumprelu", "topk"}) {
    const auto dictionary = Random(architecture);
    const Weights& w = dictionary->weights();
    const at::Tensor x = RandomRows(30, 24, 3);
    const at::Tensor pre = w.encoder(x - w.b_in);
    const at::Tensor acts =
        std::string(architecture) == "topk"
            ? KeepTopK(pre, 8)
            : Rectify(dictionary->manifest().architecture,
                      {w.threshold, w.b_gate, w.b_mag, w.mag_scale}, pre);
    EncodeOptions options;
    options.min_activation = 0.1f;
    options.top_k = 5;
    const absl::StatusOr<SparseRows> rows = ToSparse(acts, {}, 100, options);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_TRUE(Near(Dense(*rows), Dense(Encode(*dictionary, x, options))));
  }
}

}  // namespace
}  // namespace cupola::dictionary
