#include "tests/service/server_fixture.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/files/tiny_model.h"

namespace cupola::testing {
namespace {

namespace fs = std::filesystem;

struct Suite {
  std::string folder;
  std::unique_ptr<ServerProcess> server;
  std::unique_ptr<Client> client;
};
Suite* suite = nullptr;

}  // namespace

std::string MakeScratchFolder(const std::string& name) {
  const fs::path folder = fs::temp_directory_path() /
                          ("cupola_" + name + "_" + std::to_string(getpid()));
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder.string();
}

std::string WriteTinyCatalog(const std::string& folder) {
  TinySizes sizes;
  sizes.d_model = kTinyWidth;
  sizes.n_ctx = kTinyContext;
  const TinyGpt2 model(sizes);
  model.Write(folder + "/tiny");
  WriteTinySae(folder + "/sae", "blocks.1.hook_resid_pre", kTinyWidth,
               kTinyLatents, 2);
  model.Write(folder + "/broken");
  fs::resize_file(folder + "/broken/config.json", 40);
  const std::string path = folder + "/catalog.textproto";
  std::ofstream(path) << R"pb(
    model { name: "tiny" path: "tiny" }
    dictionary { name: "tiny/sae" model: "tiny" path: "sae" }
    model { name: "broken" path: "broken" }
    dictionary { name: "broken/sae" model: "broken" path: "sae" }
  )pb";
  return path;
}

void ServerFixture::SetUpTestSuite() {
  suite = new Suite();
  suite->folder = MakeScratchFolder(
      ::testing::UnitTest::GetInstance()->current_test_suite()->name());
  suite->server = ServerProcess::Start(
      {"--catalog", WriteTinyCatalog(suite->folder), "--device=cpu",
       "--cache_dir", suite->folder + "/cache", "--reflection"},
      suite->folder + "/log");
  ASSERT_NE(suite->server, nullptr);
  suite->server->WaitUntilReady();
  suite->client = suite->server->Connect();
  ASSERT_NE(suite->client, nullptr);
}

void ServerFixture::TearDownTestSuite() {
  const std::string folder = suite->folder;
  delete suite;
  suite = nullptr;
  fs::remove_all(folder);
}

const std::string& ServerFixture::folder() { return suite->folder; }
ServerProcess& ServerFixture::server() { return *suite->server; }
Client& ServerFixture::client() { return *suite->client; }

v1::FeaturesRequest FeaturesOf(const std::string& text,
                               const std::string& dictionary) {
  v1::FeaturesRequest request;
  request.set_dictionary(dictionary);
  request.mutable_prompts()->add_prompts()->set_text(text);
  return request;
}

}  // namespace cupola::testing
