#ifndef CUPOLA_TESTS_SERVICE_SERVER_FIXTURE_H_
#define CUPOLA_TESTS_SERVICE_SERVER_FIXTURE_H_

#include <memory>
#include <string>

#include "client/cpp/client.h"
#include "gtest/gtest.h"
#include "tests/service/server_process.h"

namespace cupola::testing {

inline constexpr int64_t kTinyWidth = 32, kTinyLatents = 128,
                         kTinyContext = 512;

// One server for all tests of a suite, with a cache, reflection, and a catalog
// of
//   tiny            a GPT-2 (see tiny_model.h), kTinyWidth wide
//   tiny/sae        an SAE at blocks.1.hook_resid_pre
//   broken          a model whose config.json is cut short
//   broken/sae      an SAE of that model
// Each suite has a folder of its own, removed at its end.
class ServerFixture : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();

  static const std::string& folder();
  static ServerProcess& server();
  static Client& client();
};

// The catalog above, written with its models into `folder`; its path.
std::string WriteTinyCatalog(const std::string& folder);

// A folder of this test program's own, made anew.
std::string MakeScratchFolder(const std::string& name);

v1::FeaturesRequest FeaturesOf(const std::string& text,
                               const std::string& dictionary = "tiny/sae");

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_SERVICE_SERVER_FIXTURE_H_
