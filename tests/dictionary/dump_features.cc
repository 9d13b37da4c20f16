// Runs dictionaries for the parity tests: reads one JSON job a line from
// standard input, writes one JSON answer a line to standard output.
//
//   {"folder": F, "model_config": HF_CONFIG_JSON, "input": RAW_FLOAT32_ROWS,
//    "output": PREFIX, "half": "in"|"out", "latents": [..], "top_k": 0,
//    "min_activation": 0, "dtype": "float32"|"bfloat16", "fold": false,
//    "tap": "PRE_AFFINE"|"POST_AFFINE", "hook_in": .., "hook_out": ..}
//
// writes PREFIX.indptr (int64), .indices (int32), .values, .dense and
// .reconstruction (float32), and answers {"rows", "d_sae", "d_out", "digest",
// "hook_in", "hook_out", ...} or {"error": TEXT}.

#include <fstream>
#include <iostream>
#include <string>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"
#include "server/dictionary/dictionary.h"
#include "server/model/json.h"
#include "server/model/model_config.h"
#include "server/model/status_macros.h"
#include "storage/digest.h"

namespace {

namespace dictionary = cupola::dictionary;
namespace model = cupola::model;
using model::Json;

void WriteRaw(const std::string& path, const at::Tensor& tensor) {
  const at::Tensor data = tensor.cpu().contiguous();
  std::ofstream(path, std::ios::binary)
      .write(static_cast<const char*>(data.const_data_ptr()),
             static_cast<std::streamsize>(data.nbytes()));
}

absl::StatusOr<dictionary::Overrides> OverridesOf(const Json& job) {
  dictionary::Overrides overrides;
  ASSIGN_OR_RETURN(overrides.fold_w_dec_norm,
                   model::BoolOr(job, "fold", false));
  ASSIGN_OR_RETURN(const std::string dtype,
                   model::StringOr(job, "dtype", "float32"));
  if (dtype == "bfloat16") overrides.dtype = at::kBFloat16;
  if (job.contains("tap")) {
    overrides.tap = job["tap"] == "POST_AFFINE" ? dictionary::Tap::kPostAffine
                                                : dictionary::Tap::kPreAffine;
  }
  if (job.contains("hook_in")) overrides.hook_in = job["hook_in"];
  if (job.contains("hook_out")) overrides.hook_out = job["hook_out"];
  if (job.value("mlp_source", "") == "FILE") {
    overrides.mlp_source = dictionary::MlpSource::kFile;
  }
  return overrides;
}

absl::StatusOr<Json> Run(const Json& job) {
  ASSIGN_OR_RETURN(const std::string config_path,
                   model::RequiredString(job, "model_config"));
  ASSIGN_OR_RETURN(const Json config_json, model::ReadJsonFile(config_path));
  ASSIGN_OR_RETURN(const model::ModelConfig config,
                   model::ParseModelConfig(config_json));
  ASSIGN_OR_RETURN(const dictionary::Overrides overrides, OverridesOf(job));
  ASSIGN_OR_RETURN(const std::string folder,
                   model::RequiredString(job, "folder"));
  ASSIGN_OR_RETURN(const auto source, dictionary::DictionarySource::Open(
                                          folder, overrides, config));
  const dictionary::Half half = job.value("half", "in") == "out"
                                    ? dictionary::Half::kOut
                                    : dictionary::Half::kIn;
  ASSIGN_OR_RETURN(const auto loaded,
                   dictionary::Dictionary::Load(source, half, at::kCPU));

  ASSIGN_OR_RETURN(const std::string input_path,
                   model::RequiredString(job, "input"));
  ASSIGN_OR_RETURN(std::string bytes, model::ReadFile(input_path));
  const int64_t rows =
      static_cast<int64_t>(bytes.size() / sizeof(float)) / loaded->d_in();
  const at::Tensor x =
      at::from_blob(bytes.data(), {rows, loaded->d_in()}, at::kFloat).clone();

  dictionary::EncodeOptions options;
  if (job.contains("latents")) {
    options.latents = job["latents"].get<std::vector<int32_t>>();
  }
  options.top_k = job.value("top_k", 0);
  options.min_activation = job.value("min_activation", 0.0f);
  ASSIGN_OR_RETURN(const dictionary::SparseRows features,
                   loaded->Encode(x, options));
  ASSIGN_OR_RETURN(const at::Tensor dense, loaded->EncodeDense(x));
  ASSIGN_OR_RETURN(
      const at::Tensor reconstruction,
      loaded->Decode(features, loaded->DecodeNeedsInput() ? x : at::Tensor()));

  ASSIGN_OR_RETURN(const std::string prefix,
                   model::RequiredString(job, "output"));
  WriteRaw(prefix + ".indptr", features.indptr);
  WriteRaw(prefix + ".indices", features.indices);
  WriteRaw(prefix + ".values", features.values);
  WriteRaw(prefix + ".dense", dense);
  WriteRaw(prefix + ".reconstruction", reconstruction);
  const dictionary::Manifest& manifest = loaded->manifest();
  return Json{{"rows", rows},
              {"d_sae", loaded->d_sae()},
              {"d_out", loaded->d_out()},
              {"digest", cupola::storage::ToHex(source->digest())},
              {"architecture", manifest.architecture_name},
              {"hook_in", model::HookName(manifest.hook_in)},
              {"hook_out", model::HookName(manifest.hook_out)},
              {"prepend_bos", manifest.prepend_bos},
              {"has_mlp", manifest.has_mlp},
              {"resident_bytes", loaded->resident_bytes()},
              {"weight_bytes", source->WeightBytes()}};
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const absl::StatusOr<Json> job = model::ParseJson(line, "job");
    const absl::StatusOr<Json> answer =
        job.ok() ? Run(*job) : absl::StatusOr<Json>(job.status());
    std::cout << (answer.ok() ? *answer
                              : Json{{"error", answer.status().ToString()}})
                     .dump()
              << std::endl;
  }
  return 0;
}
