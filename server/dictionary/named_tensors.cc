#include "server/dictionary/named_tensors.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/dictionary/weights.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::dictionary {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

Shapes ShapesOf(const Manifest& m) {
  Shapes shapes = {{"W_dec", {m.d_sae, m.d_out}},
                   {"b_dec", {m.d_out}},
                   {"W_enc", {m.d_in, m.d_sae}},
                   {"density", {m.d_sae}}};
  switch (m.architecture) {
    case Architecture::kMatchingPursuit:
      break;
    case Architecture::kGated:
      for (const char* name : {"b_gate", "b_mag", "r_mag"}) {
        shapes[name] = {m.d_sae};
      }
      break;
    case Architecture::kJumpRelu:
      shapes["threshold"] = {m.d_sae};
      [[fallthrough]];
    default:
      shapes["b_enc"] = {m.d_sae};
  }
  if (m.skip) shapes["W_skip"] = {m.d_out, m.d_in};
  return shapes;
}

absl::StatusOr<at::Tensor> Read(const Dictionary& dictionary,
                                const std::string& name) {
  const Weights& weights = dictionary.weights();
  if (name == "density") {
    return dictionary.source().ReadDensity(dictionary.half());
  }
  if (name == "W_enc") return weights.encoder.Weight();
  if (name == "b_enc") return weights.encoder.bias();
  if (name == "W_dec") return weights.W_dec;
  if (name == "b_dec") {
    // Matching pursuit without a bias holds none.
    return weights.b_dec.defined() ? weights.b_dec
                                   : at::zeros({dictionary.d_out()});
  }
  if (name == "threshold") return weights.threshold;
  if (name == "b_gate") return weights.b_gate;
  if (name == "b_mag") return weights.b_mag;
  // Neither is folded; the exponential of r_mag is all that is resident.
  const DictionarySource& source = dictionary.source();
  return ReadFinite(source.tensors(),
                    source.TensorName(name, dictionary.half()));
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> NamedTensorShape(
    const std::string& name, const Manifest& manifest) {
  const Shapes shapes = ShapesOf(manifest);
  const auto found = shapes.find(name);
  if (found != shapes.end()) return found->second;
  return absl::NotFoundError(absl::StrCat(
      "tensor \"", name, "\": this dictionary has ",
      absl::StrJoin(shapes, ", ",
                    [](std::string* out, const Shapes::value_type& entry) {
                      absl::StrAppend(out, entry.first);
                    })));
}

absl::StatusOr<at::Tensor> NamedTensor(const Dictionary& dictionary,
                                       const std::string& name) {
  RETURN_IF_ERROR(NamedTensorShape(name, dictionary.manifest()).status());
  return model::CatchTorch(
      absl::StrCat("reading ", name), [&]() -> absl::StatusOr<at::Tensor> {
        ASSIGN_OR_RETURN(const at::Tensor tensor, Read(dictionary, name));
        return tensor.to(at::kFloat);
      });
}

}  // namespace cupola::dictionary
