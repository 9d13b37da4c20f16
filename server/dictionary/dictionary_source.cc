#include "server/dictionary/dictionary_source.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/dictionary/selection.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::dictionary {
namespace {

using Shape = std::vector<int64_t>;

struct Expected {
  const char* name;
  Shape shape;
};

// The tensors of one half, by the names SAELens gives them.
std::vector<Expected> ExpectedTensors(const Manifest& m) {
  std::vector<Expected> expected = {{"W_dec", {m.d_sae, m.d_out}},
                                    {"b_dec", {m.d_out}}};
  if (m.architecture != Architecture::kMatchingPursuit) {
    expected.push_back({"W_enc", {m.d_in, m.d_sae}});
    if (m.architecture == Architecture::kGated) {
      for (const char* name : {"b_gate", "b_mag", "r_mag"}) {
        expected.push_back({name, {m.d_sae}});
      }
    } else {
      expected.push_back({"b_enc", {m.d_sae}});
    }
  }
  if (m.architecture == Architecture::kJumpRelu) {
    expected.push_back({"threshold", {m.d_sae}});
  }
  if (m.skip) expected.push_back({"W_skip", {m.d_out, m.d_in}});
  return expected;
}

// Tensors of which each belongs to some architectures only: one that is there
// without being expected means that the configuration names another one.
constexpr const char* kTelling[] = {"W_enc", "b_enc",     "b_gate", "b_mag",
                                    "r_mag", "threshold", "W_skip"};

std::string ShapeText(const Shape& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::vector<Half> Halves(const Manifest& m) {
  return m.kind == Kind::kPair ? std::vector<Half>{Half::kIn, Half::kOut}
                               : std::vector<Half>{Half::kIn};
}

std::string FileName(const Manifest& m, const std::string& name, Half half) {
  if (m.kind != Kind::kPair) return name;
  return absl::StrCat("_", name, half == Half::kOut ? "_out" : "");
}

absl::Status CheckShape(const model::SafetensorsSet& tensors,
                        const std::string& name, const Shape& shape) {
  const auto it = tensors.tensors().find(name);
  if (it == tensors.tensors().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " ", ShapeText(shape),
                     " is missing (float32, float16 and bfloat16 are read)"));
  }
  if (it->second.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", name, " has the shape ", ShapeText(it->second.shape),
        ": the configuration asks ", "for ", ShapeText(shape)));
  }
  return absl::OkStatus();
}

absl::Status CheckTensors(const Manifest& m,
                          const model::SafetensorsSet& tensors) {
  if (m.kind != Kind::kPair && tensors.Has("_W_enc_out")) {
    return absl::InvalidArgumentError(
        "the tensors are those of a Jacobian pair (_W_enc_out): cfg.json needs "
        "\"is_pair\": true");
  }
  for (Half half : Halves(m)) {
    std::set<std::string> known;
    for (const Expected& e : ExpectedTensors(m)) {
      RETURN_IF_ERROR(CheckShape(tensors, FileName(m, e.name, half), e.shape));
      known.insert(e.name);
    }
    for (const char* name : kTelling) {
      if (known.count(name) == 0 && tensors.Has(FileName(m, name, half))) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", FileName(m, name, half),
                         " is no part of architecture ", m.architecture_name));
      }
    }
  }
  if (tensors.Has("scaling_factor") && m.kind != Kind::kPair) {
    RETURN_IF_ERROR(CheckShape(tensors, "scaling_factor", {m.d_sae}));
  }
  return absl::OkStatus();
}

// Fills has_mlp. The stored MLP must be the served model's in size.
absl::Status CheckMlp(const model::ModelConfig& config,
                      const model::SafetensorsSet& tensors,
                      Manifest* manifest) {
  manifest->has_mlp = manifest->kind == Kind::kPair && tensors.Has("mlp.W_in");
  if (!manifest->has_mlp) {
    if (manifest->mlp_source == MlpSource::kModel) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "mlp_source is FILE but the file has no tensor mlp.W_in");
  }
  const int64_t d = manifest->d_in, m = config.d_mlp;
  RETURN_IF_ERROR(CheckShape(tensors, "mlp.W_in", {d, m}));
  RETURN_IF_ERROR(CheckShape(tensors, "mlp.b_in", {m}));
  RETURN_IF_ERROR(CheckShape(tensors, "mlp.W_out", {m, d}));
  return CheckShape(tensors, "mlp.b_out", {d});
}

}  // namespace

absl::StatusOr<at::Tensor> ReadFinite(const model::SafetensorsSet& tensors,
                                      const std::string& name) {
  ASSIGN_OR_RETURN(at::Tensor tensor, tensors.Read(name, at::kFloat));
  const int64_t bad =
      CountNonFinite(tensor.const_data_ptr<float>(), tensor.numel());
  if (bad > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " holds ", bad, " of ", tensor.numel(),
                     " values that are not finite"));
  }
  return tensor;
}

absl::StatusOr<std::shared_ptr<const DictionarySource>> DictionarySource::Open(
    const std::string& folder, const Overrides& overrides,
    const model::ModelConfig& config) {
  ASSIGN_OR_RETURN(const model::Json cfg,
                   model::ReadJsonFile(absl::StrCat(folder, "/cfg.json")));
  std::shared_ptr<DictionarySource> source(new DictionarySource);
  ASSIGN_OR_RETURN(source->manifest_, ParseManifest(cfg, overrides, config));
  ASSIGN_OR_RETURN(source->tensors_,
                   model::SafetensorsSet::OpenFolder(folder, "sae_weights"));
  RETURN_IF_ERROR(CheckTensors(source->manifest_, *source->tensors_));
  RETURN_IF_ERROR(CheckMlp(config, *source->tensors_, &source->manifest_));
  ASSIGN_OR_RETURN(const storage::Digest content,
                   source->tensors_->ContentDigest());
  source->folder_ = folder;
  source->digest_ = storage::Hasher("dictionary/1")
                        .AddDigest(content)
                        .AddBytes(source->manifest_.fingerprint)
                        .Finish();
  return source;
}

std::string DictionarySource::TensorName(const std::string& name,
                                         Half half) const {
  return FileName(manifest_, name, half);
}

int64_t DictionarySource::WeightBytes() const {
  int64_t values = 0;
  for (const Expected& e : ExpectedTensors(manifest_)) {
    int64_t size = 1;
    for (int64_t n : e.shape) size *= n;
    values += size;
  }
  return values * static_cast<int64_t>(Halves(manifest_).size()) *
         static_cast<int64_t>(c10::elementSize(manifest_.dtype));
}

absl::StatusOr<MlpWeights> DictionarySource::ReadMlp() const {
  return model::CatchTorch(
      "reading a pair's MLP", [&]() -> absl::StatusOr<MlpWeights> {
        if (!manifest_.has_mlp) {
          return absl::FailedPreconditionError(
              "this dictionary's file stores no MLP (mlp.W_in)");
        }
        MlpWeights mlp;
        for (const auto& [name, target] :
             {std::pair<const char*, at::Tensor*>{"mlp.W_in", &mlp.W_in},
              {"mlp.b_in", &mlp.b_in},
              {"mlp.W_out", &mlp.W_out},
              {"mlp.b_out", &mlp.b_out}}) {
          ASSIGN_OR_RETURN(*target, ReadFinite(*tensors_, name));
        }
        return mlp;
      });
}

absl::StatusOr<at::Tensor> DictionarySource::ReadDensity(Half half) const {
  return model::CatchTorch(
      "reading a dictionary's density", [&]() -> absl::StatusOr<at::Tensor> {
        const std::string path = absl::StrCat(folder_, "/sparsity.safetensors");
        const auto opened = model::SafetensorsSet::OpenFile(path);
        if (absl::IsNotFound(opened.status())) {
          return absl::NotFoundError(
              "this dictionary's files declare no density "
              "(sparsity.safetensors)");
        }
        ASSIGN_OR_RETURN(const auto tensors, opened);
        const std::string name = half == Half::kOut ? "sparsity2" : "sparsity";
        RETURN_IF_ERROR(CheckShape(*tensors, name, {manifest_.d_sae}));
        ASSIGN_OR_RETURN(const at::Tensor log10, ReadFinite(*tensors, name));
        return at::pow(10, log10);
      });
}

}  // namespace cupola::dictionary
