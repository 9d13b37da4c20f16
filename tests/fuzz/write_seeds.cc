// write_fuzz_seeds FOLDER: good inputs of every fuzz target, as the program's
// own writers make them, in FOLDER/TARGET/.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>

#include "server/analysis/jacobian_totals.h"
#include "server/engine/job_record.h"
#include "storage/record.h"
#include "storage/state_file.h"
#include "tests/files/tiny_model.h"
#include "tests/fuzz/request_types.h"
#include "tests/stress/request_seeds.h"

namespace cupola::testing {
namespace {

namespace fs = std::filesystem;

class Seeds {
 public:
  explicit Seeds(fs::path folder) : folder_(std::move(folder)) {}

  void Write(const std::string& target, const std::string& bytes) {
    const fs::path place = folder_ / target;
    fs::create_directories(place);
    std::ofstream(place / std::to_string(count_++), std::ios::binary) << bytes;
  }
  void Copy(const std::string& target, const fs::path& file,
            const std::string& prefix = "") {
    std::ifstream in(file, std::ios::binary);
    Write(target, prefix + std::string(std::istreambuf_iterator<char>(in), {}));
  }

 private:
  const fs::path folder_;
  int count_ = 0;
};

void WriteRecords(Seeds* seeds) {
  storage::Record record(2);
  record[0] = {storage::DType::kFloat32, {2, 3}, std::string(24, '\1')};
  record[1] = {storage::DType::kInt32, {}, std::string(4, '\2')};
  const auto bytes =
      storage::EncodeRecord({7, 2, {1, 2, 3}}, record, absl::UnixEpoch());
  if (bytes.ok()) seeds->Write("cache_record", *bytes);
}

void WriteJobs(Seeds* seeds, const std::string& scratch) {
  engine::JobRecord record;
  record.info.kind = "accumulate_jacobian";
  record.info.chunks = 5;
  seeds->Write("job_state",
               std::string(1, '\0') + engine::EncodeJobRecord(record));
  analysis::JacobianTotals totals({.d_out = 5, .d_in = 3, .bins = 4});
  const int32_t in[] = {0, 2};
  const float values[] = {0.5, -2};
  totals.Add(1, {{1, in, values, 2, true}});
  const std::string path = scratch + "/state";
  auto writer = storage::StateWriter::Create(path, {.kind = "k", .version = 1});
  if (!writer.ok() || !totals.Save(writer->get()).ok() ||
      !(*writer)->Commit().ok()) {
    return;
  }
  seeds->Copy("job_state", path, "\1");
  // The body alone: behind a header with a kind of one letter, before the
  // trailer.
  constexpr size_t kHeader = 61, kTrailer = 16;
  std::ifstream in_file(path, std::ios::binary);
  const std::string whole(std::istreambuf_iterator<char>(in_file), {});
  seeds->Write("job_state",
               "\2" + whole.substr(kHeader, whole.size() - kHeader - kTrailer));
}

void WriteModels(Seeds* seeds, const std::string& scratch) {
  TinySizes sizes;
  sizes.d_model = 4;
  sizes.n_heads = 2;
  sizes.n_layers = 1;
  sizes.n_ctx = 4;
  TinyGpt2(sizes).Write(scratch + "/model");
  WriteTinySae(scratch + "/sae", "blocks.1.hook_resid_pre", 4, 3, 1);
  seeds->Copy("model_config", scratch + "/model/config.json");
  seeds->Copy("tokenizer", scratch + "/model/tokenizer.json");
  seeds->Copy("safetensors", scratch + "/sae/sae_weights.safetensors");
  seeds->Copy("dictionary_config", scratch + "/sae/cfg.json");
}

// What other programs write: of tests/data, where they are small enough.
void CopyTokenizers(Seeds* seeds) {
  for (const auto& entry : fs::directory_iterator("tests/data/tokenizers")) {
    const fs::path file = entry.path() / "tokenizer.json";
    if (fs::exists(file)) seeds->Copy("tokenizer", file);
  }
}

void WriteRequests(Seeds* seeds) {
  std::map<std::string, char> numbers;
  ForEachRequestType([&](size_t number, const auto& message) {
    numbers[message.GetTypeName()] = static_cast<char>(number);
  });
  for (const SeededMethod& method : SeededMethods()) {
    for (const auto& seed : method.seeds) {
      const auto found = numbers.find(seed->GetTypeName());
      if (found == numbers.end()) continue;
      seeds->Write("request", found->second + seed->SerializeAsString());
    }
  }
}

}  // namespace
}  // namespace cupola::testing

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_fuzz_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = argv[1];
  const std::string scratch = folder + "/scratch";
  std::filesystem::create_directories(scratch);
  cupola::testing::Seeds seeds(folder);
  cupola::testing::WriteRecords(&seeds);
  cupola::testing::WriteJobs(&seeds, scratch);
  cupola::testing::WriteModels(&seeds, scratch);
  cupola::testing::CopyTokenizers(&seeds);
  cupola::testing::WriteRequests(&seeds);
  std::filesystem::remove_all(scratch);
  return 0;
}
