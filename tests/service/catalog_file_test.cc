#include "server/service/catalog_file.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::service {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class CatalogFileTest : public ::testing::Test {
 protected:
  CatalogFileTest() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::canonical(fs::temp_directory_path()) /
              (std::string("cupola_catalog_") + test->name() + "_" +
               std::to_string(getpid()));
    fs::create_directories(folder_ / "models" / "gpt");
  }
  ~CatalogFileTest() override { fs::remove_all(folder_); }

  absl::StatusOr<engine::CatalogSpec> Parse(const std::string& text,
                                            const std::string& root = "") {
    return ParseCatalog(text, (folder_ / "catalog.textproto").string(), root);
  }

  void ExpectRefused(const std::string& text,
                     const std::vector<std::string>& says,
                     const std::string& root = "") {
    SCOPED_TRACE(text);
    const auto catalog = Parse(text, root);
    ASSERT_FALSE(catalog.ok());
    EXPECT_EQ(catalog.status().code(), absl::StatusCode::kInvalidArgument);
    for (const std::string& part : says) {
      EXPECT_THAT(std::string(catalog.status().message()), HasSubstr(part));
    }
  }

  fs::path folder_;
};

TEST_F(CatalogFileTest, ReadsEverything) {
  const auto catalog = Parse(R"pb(
    model { name: "gpt" path: "models/gpt" dtype: BFLOAT16 device: "cpu" }
    dictionary {
      name: "gpt/sae.v1-a_b"
      model: "gpt"
      path: "/absolute/sae"
      dtype: BFLOAT16
      processing: FOLDED
      hook_in: "hook_embed"
      hook_out: "blocks.0.hook_mlp_out"
      fold_w_dec_norm: true
      mlp_source: FILE
      tap: POST_AFFINE
      prepend_bos: false
      expect { l0: 32 fvu: 0.15 }
    }
  )pb");
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  ASSERT_EQ(catalog->models.size(), 1u);
  EXPECT_EQ(catalog->models[0].path, (folder_ / "models/gpt").string());
  EXPECT_EQ(catalog->models[0].dtype, storage::DType::kBFloat16);
  EXPECT_EQ(catalog->models[0].device, "cpu");
  ASSERT_EQ(catalog->dictionaries.size(), 1u);
  const engine::DictionarySpec& spec = catalog->dictionaries[0];
  EXPECT_EQ(spec.path, "/absolute/sae");
  const dictionary::Overrides& overrides = spec.overrides;
  EXPECT_EQ(overrides.dtype, at::kBFloat16);
  EXPECT_EQ(overrides.processing, std::optional(model::Processing::kFolded));
  EXPECT_EQ(overrides.hook_in, std::optional<std::string>("hook_embed"));
  EXPECT_EQ(overrides.tap, std::optional(dictionary::Tap::kPostAffine));
  EXPECT_EQ(overrides.prepend_bos, std::optional<bool>(false));
  EXPECT_TRUE(overrides.fold_w_dec_norm);
  EXPECT_EQ(overrides.mlp_source, dictionary::MlpSource::kFile);
  EXPECT_EQ(overrides.expected_l0, std::optional<double>(32));
  EXPECT_EQ(overrides.expected_fvu, std::optional<double>(0.15));
}

TEST_F(CatalogFileTest, WhatIsUnsetStaysUnset) {
  const auto catalog = Parse(R"pb(
    dictionary { name: "d" model: "m" path: "d" }
  )pb");
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  const dictionary::Overrides& overrides = catalog->dictionaries[0].overrides;
  EXPECT_EQ(overrides.processing, std::nullopt);
  EXPECT_EQ(overrides.hook_in, std::nullopt);
  EXPECT_EQ(overrides.tap, std::nullopt);
  EXPECT_EQ(overrides.prepend_bos, std::nullopt);
  EXPECT_EQ(overrides.expected_l0, std::nullopt);
  EXPECT_EQ(overrides.dtype, at::kFloat);
}

TEST_F(CatalogFileTest, ErrorsTellLineAndColumn) {
  ExpectRefused("model {\n  name: \"a\"\n  colour: 3\n}",
                {"catalog.textproto:3:9: ", "colour"});
  ExpectRefused("model { name: \"a\" ", {"catalog.textproto:1:"});
  ExpectRefused("model { dtype: FLOAT31 }", {"FLOAT31"});
}

TEST_F(CatalogFileTest, BadEntries) {
  ExpectRefused(R"pb(model { path: "p" })pb", {"name of a model is \"\""});
  ExpectRefused(R"pb(model { name: "a b" path: "p" })pb", {"\"a b\""});
  ExpectRefused(R"pb(model { name: "pair:in" path: "p" })pb", {"pair:in"});
  ExpectRefused(R"pb(model { name: "a" })pb", {"path of \"a\" is empty"});
  ExpectRefused(R"pb(model { name: "a" path: "p" dtype: INT32 })pb",
                {"dtype of \"a\" is INT32", "BFLOAT16"});
  ExpectRefused(R"pb(dictionary { name: "d" path: "p" })pb",
                {"model of \"d\" is \"\""});
}

TEST_F(CatalogFileTest, ModelRootHoldsPathsIn) {
  fs::create_directories(folder_ / "elsewhere");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "models/link");
  const std::string root = (folder_ / "models").string();
  const auto entry = [](const std::string& path) {
    return "model { name: \"m\" path: \"" + path + "\" }";
  };
  EXPECT_TRUE(Parse(entry("models/gpt"), root).ok());
  EXPECT_TRUE(Parse(entry("models/not_there_yet"), root).ok());
  for (const std::string path :
       {"elsewhere", "models/../elsewhere", "models/link", "/etc", "models2"}) {
    ExpectRefused(entry(path), {"path of \"m\"", "model root"}, root);
  }
  ExpectRefused(entry("models/gpt"), {"model root"},
                (folder_ / "missing").string());
}

TEST_F(CatalogFileTest, ReadsFromDisk) {
  const std::string path = (folder_ / "catalog.textproto").string();
  EXPECT_EQ(ReadCatalogFile(path, "").status().code(),
            absl::StatusCode::kNotFound);
  std::ofstream(path) << "model { name: \"m\" path: \"models/gpt\" }";
  const auto catalog = ReadCatalogFile(path, "");
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  EXPECT_EQ(catalog->models[0].path, (folder_ / "models/gpt").string());
}

}  // namespace
}  // namespace cupola::service
