#include "server/engine/entries.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelSpec Model(const std::string& name) {
  ModelSpec spec;
  spec.name = name;
  spec.path = "/" + name;
  return spec;
}

DictionarySpec DictionaryOf(const std::string& name, const std::string& model) {
  DictionarySpec spec;
  spec.name = name;
  spec.model = model;
  spec.path = "/" + name;
  return spec;
}

const Devices kCpu = {{"cpu"}, {"cpu"}};

std::string Why(const EntriesPtr& entries, const std::string& name) {
  const auto model = entries->models.find(name);
  return std::string(model != entries->models.end()
                         ? model->second->broken.message()
                         : entries->dictionaries.at(name)->broken.message());
}

TEST(EntriesTest, WhatIsTheSameIsTakenOver) {
  CatalogSpec spec;
  spec.models = {Model("a"), Model("b")};
  spec.dictionaries = {DictionaryOf("a/d", "a"), DictionaryOf("b/d", "b")};
  const EntriesPtr first = MakeEntries(spec, Entries{}, kCpu);
  EXPECT_THAT(first->model_order, ElementsAre("a", "b"));
  spec.models[1].stamp = "other files";
  const EntriesPtr second = MakeEntries(spec, *first, kCpu);
  EXPECT_EQ(second->models.at("a"), first->models.at("a"));
  EXPECT_EQ(second->dictionaries.at("a/d"), first->dictionaries.at("a/d"));
  EXPECT_NE(second->models.at("b"), first->models.at("b"));
  // Of another model now, though its own files are the same.
  EXPECT_NE(second->dictionaries.at("b/d"), first->dictionaries.at("b/d"));
  EXPECT_EQ(second->dictionaries.at("b/d")->model, second->models.at("b"));
}

TEST(EntriesTest, WhatContradictsItselfIsBrokenAndTheRestIsServed) {
  CatalogSpec spec;
  spec.models = {Model("a"), Model("twice"), Model("twice"), Model("far"),
                 Model("outside")};
  spec.models[3].device = "cuda:99";
  spec.models[4].failure = "lies outside";
  spec.dictionaries = {DictionaryOf("d", "a"), DictionaryOf("e", "a"),
                       DictionaryOf("e", "a"), DictionaryOf("orphan", "nobody"),
                       DictionaryOf("a", "a")};
  const EntriesPtr entries = MakeEntries(spec, Entries{}, kCpu);
  EXPECT_THAT(entries->model_order,
              ElementsAre("a", "twice", "far", "outside"));
  EXPECT_THAT(entries->dictionary_order, ElementsAre("d", "e", "orphan", "a"));
  EXPECT_EQ(Why(entries, "a"), "");
  EXPECT_EQ(Why(entries, "d"), "");
  EXPECT_THAT(Why(entries, "twice"), HasSubstr("twice"));
  EXPECT_THAT(Why(entries, "far"), HasSubstr("cuda:99"));
  EXPECT_THAT(Why(entries, "outside"), HasSubstr("lies outside"));
  EXPECT_THAT(Why(entries, "e"), HasSubstr("twice"));
  EXPECT_THAT(Why(entries, "orphan"), HasSubstr("\"nobody\""));
  EXPECT_THAT(std::string(entries->dictionaries.at("a")->broken.message()),
              HasSubstr("a model"));
  EXPECT_EQ(StateOf(*entries->models.at("twice")), State::kFailed);
  EXPECT_EQ(StateOf(*entries->dictionaries.at("orphan")), State::kFailed);
  // Nothing makes it whole but another catalog.
  ForgetFailures(*entries->models.at("twice"));
  EXPECT_EQ(StateOf(*entries->models.at("twice")), State::kFailed);
  spec.models.erase(spec.models.begin() + 2);
  const EntriesPtr mended = MakeEntries(spec, *entries, kCpu);
  EXPECT_EQ(Why(mended, "twice"), "");
  EXPECT_EQ(StateOf(*mended->models.at("twice")), State::kRegistered);
  EXPECT_EQ(mended->models.at("a"), entries->models.at("a"));
}

}  // namespace
}  // namespace cupola::engine
