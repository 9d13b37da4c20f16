#include "tests/stress/request_seeds.h"

#include <filesystem>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "cupola/v1/admin.pb.h"
#include "cupola/v1/analysis.pb.h"
#include "cupola/v1/catalog.pb.h"
#include "cupola/v1/datasets.pb.h"
#include "cupola/v1/jobs.pb.h"
#include "google/protobuf/text_format.h"
#include "tests/files/tiny_model.h"

namespace cupola::testing {
namespace {

constexpr int64_t kWidth = 32, kLatents = 64, kContext = 48;

// By method, without its package.
const std::multimap<std::string, std::string>& SeedTexts() {
  static const std::string prompts =
      "prompts { prompts { text: \"the cat sat\" } "
      "prompts { tokens { ids: 256 ids: 98 ids: 99 } } } ";
  static const std::string text = "prompts { prompts { text: \"a mat\" } } ";
  static const std::string model = "model: \"tiny\" ";
  static const std::string corpus =
      "rows { dataset: \"corpus\" tokenization { model: \"tiny\" } } ";
  static const std::string sae = "dictionary: \"tiny/sae\" ";
  static const std::string pair =
      "dictionary: \"tiny/in\" output_dictionary: \"tiny/out\" ";
  // One row of 32 floats.
  static const std::string row = absl::StrCat(
      "{ dtype: FLOAT32 shape: 1 shape: 32 data: \"",
      [] {
        std::string data;
        for (int i = 0; i < 32; ++i) data += "\\000\\000\\200\\077";
        return data;
      }(),
      "\" } ");
  static const auto* const kTexts = new std::multimap<std::string, std::string>{
      {"Analysis/Tokenize", model + prompts},
      {"Analysis/Tokenize",
       model + "prompts { prompts { text: \"x\" } prepend_bos: true }"},
      {"Analysis/GetActivations",
       model + prompts +
           "hooks: \"blocks.1.hook_resid_pre\" hooks: \"hook_embed\" "
           "positions { every_prompt { values: -1 values: 0 } }"},
      {"Analysis/GetActivations", model + text +
                                      "hooks: \"blocks.0.attn.hook_pattern\" "
                                      "processing: FOLDED dtype: BFLOAT16"},
      {"Analysis/GetFeatures",
       sae + prompts + "latents: 3 latents: 9 min_activation: 0.1"},
      {"Analysis/GetFeatures", sae + "top_k: 5 inputs " + row},
      {"Analysis/GetFeatures",
       sae + prompts +
           "positions { per_prompt { lists { values: 1 } lists { "
           "values: -1 } } }"},
      {"Analysis/GetFeatures", sae + prompts + "dry_run: true"},
      {"Analysis/Reconstruct", sae + prompts},
      {"Analysis/Reconstruct", sae + "inputs " + row},
      {"Analysis/Reconstruct",
       sae + "features { columns: 64 "
             "indptr { dtype: INT64 shape: 2 data: "
             "\"\\000\\000\\000\\000\\000\\000\\000\\000\\001\\000\\000\\000"
             "\\000\\000\\000\\000\" } "
             "indices { dtype: UINT32 shape: 1 data: \"\\005\\000\\000\\000\" }"
             "values { dtype: FLOAT32 shape: 1 data: \"\\000\\000\\200\\077\" "
             "} }"},
      {"Analysis/Run",
       model + prompts +
           "output: true top_logits: 3 dictionaries: \"tiny/sae\" "
           "hooks: \"blocks.1.hook_resid_pre\" "
           "sets { interventions { hook: \"blocks.0.hook_mlp_out\" zero {} } } "
           "sets { interventions { dictionary: \"tiny/sae\" "
           "subtract_latents { latents: 3 } positions { every_prompt { "
           "values: -1 } } } }"},
      {"Analysis/Run",
       model + text +
           "boosts { top: 4 } positions { every_prompt { values: -1 } } sets { "
           "interventions { hook: "
           "\"blocks.0.hook_resid_pre\" add { scale: 2 value { dtype: FLOAT32 "
           "shape: 32 data: \"" +
           [] {
             std::string data;
             for (int i = 0; i < 32; ++i) data += "\\000\\000\\000\\077";
             return data;
           }() +
           "\" } } } interventions { hook: \"blocks.1.attn.hook_z\" heads: 1 "
           "scale { factor: 0.5 } } }"},
      {"Analysis/Run",
       model + text +
           "output: true sets { interventions { hook: "
           "\"blocks.1.hook_resid_pre\" patch { source { prompts { text: "
           "\"other\" } } source_positions { every_prompt { values: 1 } } } "
           "positions { every_prompt { values: 2 } } } interventions { "
           "dictionary: \"tiny/sae\" set_latents { latents { latent: 4 value: "
           "2 } } } }"},
      {"Analysis/Generate",
       model + text +
           "max_new_tokens: 6 temperature: 0.8 top_k: 20 top_p: "
           "0.9 seed: 5 samples: 2 top_logprobs: 2"},
      {"Analysis/Generate",
       model + text +
           "max_new_tokens: 3 stop { ids: 256 } interventions { hook: "
           "\"blocks.0.hook_attn_out\" scope: GENERATED zero {} }"},
      {"Analysis/Ablate", sae + prompts + "mode: SUBTRACT"},
      {"Analysis/Ablate", sae + text +
                              "latents: 3 latents: 5 later: true "
                              "position { every_prompt { values: -2 } }"},
      {"Analysis/Ablate", sae + text +
                              "mode: RECONSTRUCT together: true "
                              "answers { ids: 98 } latents: 7"},
      {"Analysis/TabulateAblations",
       sae + prompts + "min_share: 0 max_latents: 5 prompts_per_latent: 2"},
      {"Analysis/GetWeight", model + "name: \"W_E\" rows: 1 rows: 7"},
      {"Analysis/GetWeight", sae + "name: \"W_dec\" rows: 3 columns: 2"},
      {"Analysis/GetLatentWeights",
       sae + "nearest { latents: 3 top_k: 4 side: DECODER }"},
      {"Analysis/GetLatentWeights",
       sae + "tokens { latents: 3 top: 2 bottom: 2 }"},
      {"Analysis/GetLatentWeights", sae + "logits { tokens: 97 tokens: 98 }"},
      {"Analysis/GetLatentWeights",
       sae + "gram { latents: 1 latents: 2 threshold: 0.1 }"},
      {"Analysis/Attribute",
       model + text + "level: HEADS logits { tokens { ids: 98 } }"},
      {"Analysis/Attribute", model + sae + text +
                                 "level: LAYERS latents { latents: 4 } "
                                 "positions { every_prompt { values: -1 } }"},
      {"Analysis/LogitLens", model + text + "tokens: 97 top: 3 mids: true"},
      {"Analysis/GetQuality", sae + prompts},
      {"Analysis/MeanActivation",
       model + prompts + "hook: \"blocks.0.hook_resid_post\""},
      {"Analysis/MeanActivation",
       model + text + "hook: \"blocks.1.hook_resid_pre\" name: \"stored\""},
      {"Analysis/ListMeans", model},
      {"Analysis/DeleteMean",
       model + "name: \"stored\" hook: \"blocks.1.hook_resid_pre\""},
      {"Analysis/GetJacobian", pair + text},
      {"Analysis/GetJacobian",
       pair + text +
           "second_order: true gradients: true mask: POSITIVE min_abs: 0.01 "
           "positions { every_prompt { values: -1 } }"},
      {"Analysis/GetJacobian",
       pair + text + "all_inputs { min_abs: 0.1 top: 3 }"},
      {"Analysis/GetJacobian",
       "dictionary: \"tiny/in\" output_dictionary: \"tiny/sae\" mode: FROZEN " +
           text +
           "source_positions { all: true } "
           "positions { every_prompt { values: -1 } }"},
      {"Analysis/AblateDirections", pair + text + "draw { per_token: 3 }"},
      {"Analysis/AblateDirections",
       pair + text + "samples { rows: 0 in_latents: 3 out_latents: 4 }"},
      {"Analysis/Sweep", pair + text + "draw { per_token: 2 } points: 8"},
      {"Analysis/Sweep", pair + text +
                             "samples { rows: 1 in_latents: 3 out_latents: 4 } "
                             "grid: 0 grid: 1 grid: 2 curves: true"},
      {"Catalog/Describe", "name: \"tiny\""},
      {"Catalog/Describe", "name: \"tiny/sae\""},
      {"Catalog/Load", "name: \"tiny\" processing: FOLDED"},
      {"Catalog/Load", "name: \"broken\""},
      {"Catalog/Unload", "name: \"tiny/out\""},
      {"Catalog/SelfCheck", "name: \"tiny/sae\""},
      {"Jobs/AccumulateJacobian",
       "jacobian { " + pair + text + "} histogram_bins: 10 chunk_tokens: 8"},
      {"Jobs/ComputeFeatureStatistics", sae + text + "chunk_tokens: 8"},
      {"Jobs/ComputeFeatureStatistics",
       sae + corpus + "top_k: 3 octaves: 9 options { name: \"named\" }"},
      {"Jobs/MatchFeatures",
       sae + "others: \"tiny/sae\" float64: true chunk_tokens: 4 " + corpus},
      {"Jobs/CountCoactivation", sae + "sample: 7 " + text},
      {"Jobs/ExportShard", "id: \"nothing\""},
      {"Jobs/MergeShards", "options { keep_seconds: 60 }"},
      {"Jobs/MergeShards",
       "header { kind: \"feature_statistics\" specification: \"{}\" "
       "shard { count: 2 } state_bytes: 8 }"},
      {"Jobs/MergeShards", "chunk: \"CUPSTATE\""},
      {"Jobs/MergeShards",
       "header { kind: \"feature_statistics\" specification: \"{}\" "
       "shard { index: 1 count: 2 } state_bytes: 8 }"},
      {"Jobs/MergeShards", "chunk: \"CUPSTATE\""},
      {"Jobs/GetFeatureStatistics",
       "job: \"nothing\" top: true intervals: 3 each: 2"},
      {"Datasets/Upload", "header { name: \"corpus\" }"},
      {"Datasets/Upload", "rows { texts: \"the cat sat\" texts: \"a mat\" }"},
      // Of these two texts.
      {"Datasets/Upload",
       "sha256: "
       "\"\\155\\335\\341\\233\\052\\270\\006\\305\\170\\063\\145\\044\\017\\32"
       "1"
       "\\124\\135\\352\\343\\324\\131\\103\\074\\273\\204\\277\\141\\010\\220"
       "\\055\\313\\154\\360\""},
      {"Datasets/Get", "name: \"corpus\""},
      {"Datasets/Delete", "name: \"nothing\""},
      {"Datasets/Tokenize",
       "dataset: \"corpus\" tokenization { model: \"tiny\" layout: PACKED "
       "row_tokens: 5 separator: SEPARATOR_EOS }"},
      {"Datasets/GetRows", "dataset: \"corpus\" first: 1 count: 1"},
      {"Datasets/GetRows",
       "dataset: \"corpus\" count: 2 tokenization { model: \"tiny\" }"},
      {"Jobs/Get", "id: \"nothing\""},
      {"Jobs/Watch", "id: \"nothing\""},
      {"Jobs/Cancel", "id: \"nothing\""},
      {"Jobs/Resume", "id: \"nothing\""},
      {"Jobs/Delete", "id: \"nothing\""},
      {"Jobs/GetJacobianTotals",
       "job: \"nothing\" top: 4 thresholds: 0.5 rows: 1 histogram: true"},
  };
  return *kTexts;
}

// A file of each proto that declares services, so that it is linked.
std::vector<const google::protobuf::FileDescriptor*> ServiceFiles() {
  return {v1::TokenizeRequest::descriptor()->file(),
          v1::ListRequest::descriptor()->file(),
          v1::GetServerInfoRequest::descriptor()->file(),
          v1::JobId::descriptor()->file(),
          v1::DatasetName::descriptor()->file()};
}

}  // namespace

std::vector<SeededMethod> SeededMethods() {
  auto* const factory = google::protobuf::MessageFactory::generated_factory();
  std::vector<SeededMethod> methods;
  for (const auto* file : ServiceFiles()) {
    for (int s = 0; s < file->service_count(); ++s) {
      const auto* service = file->service(s);
      for (int m = 0; m < service->method_count(); ++m) {
        const auto* method = service->method(m);
        const std::string name =
            absl::StrCat(service->name(), "/", method->name());
        const auto* prototype = factory->GetPrototype(method->input_type());
        SeededMethod seeded;
        seeded.path = absl::StrCat("/", file->package(), ".", name);
        // What is stored changes with the requests that store.
        seeded.repeatable = service->name() == "Analysis" &&
                            method->name().find("Mean") == std::string::npos;
        seeded.streamed = method->client_streaming();
        seeded.answer = factory->GetPrototype(method->output_type());
        const auto [begin, end] = SeedTexts().equal_range(name);
        for (auto it = begin; it != end; ++it) {
          seeded.seeds.emplace_back(prototype->New());
          if (!google::protobuf::TextFormat::ParseFromString(
                  it->second, seeded.seeds.back().get())) {
            return {};
          }
        }
        if (seeded.seeds.empty()) seeded.seeds.emplace_back(prototype->New());
        methods.push_back(std::move(seeded));
      }
    }
  }
  return methods;
}

std::string WriteSeedCatalog(const std::string& folder) {
  TinySizes sizes;
  sizes.d_model = kWidth;
  sizes.n_ctx = kContext;
  TinyGpt2(sizes).Write(folder + "/tiny");
  const auto sae = [&](const std::string& name, const std::string& hook,
                       uint32_t seed) {
    WriteTinySae(absl::StrCat(folder, "/", name), hook, kWidth, kLatents, seed);
  };
  sae("sae", "blocks.1.hook_resid_pre", 2);
  sae("in", "blocks.0.ln2.hook_normalized", 3);
  sae("out", "blocks.0.hook_mlp_out", 4);
  std::filesystem::create_directories(folder + "/broken");
  std::ofstream(folder + "/broken/config.json") << "{";
  const std::string path = folder + "/catalog.textproto";
  std::ofstream(path) << R"pb(
    model { name: "tiny" path: "tiny" }
    dictionary { name: "tiny/sae" model: "tiny" path: "sae" }
    dictionary { name: "tiny/in" model: "tiny" path: "in" }
    dictionary { name: "tiny/out" model: "tiny" path: "out" }
    model { name: "broken" path: "broken" }
  )pb";
  return path;
}

}  // namespace cupola::testing
