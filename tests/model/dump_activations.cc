// Runs forward passes that a JSON file describes and writes what they return as
// safetensors files, for comparison with other implementations:
//
//   dump_activations REQUEST.json OUTPUT_FOLDER
//
// The request names a model {"model": folder, "processing": "raw" | "folded",
// "dtype": "float32" | "bfloat16", "device": "cpu"} and a list "cases" of
// {"name", "tokens": [[id, ...], ...], "hooks": [name, ...] or "all",
//  "logits": bool, "stop_at_layer": n, "start_layer": n,
//  "start_from": [case, hook],            a tensor of an earlier case
//  "edits": {hook: [factor, addend]},     x * factor + addend
//  "each": "capture" | "edit"}.
// With "each" the case is run once per hook point of layer 1 and outside the
// layers, that point being captured or edited (x * 1.1 + 0.05) alone, and its
// results are the captured values, or the logits, by hook point.
// Writes OUTPUT_FOLDER/NAME.safetensors, everything in float32, with the
// further tensors "logits" and "residual", and prints one JSON object with what
// the model says of itself.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/hook_point.h"
#include "server/model/json.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"
#include "storage/digest.h"

namespace cupola::model {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

absl::Status Write(const std::string& path, const Tensors& tensors) {
  Json header = Json::object();
  std::vector<at::Tensor> data;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    data.push_back(tensor.to(at::kFloat).cpu().contiguous());
    const uint64_t end = offset + data.back().nbytes();
    header[name] = {{"dtype", "F32"},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file << text;
  for (const at::Tensor& tensor : data) {
    file.write(static_cast<const char*>(tensor.const_data_ptr()),
               static_cast<std::streamsize>(tensor.nbytes()));
  }
  file.flush();
  return file.good() ? absl::OkStatus() : absl::InternalError(path);
}

absl::StatusOr<Tensors> RunCase(const Model& model, const Json& json,
                                const std::map<std::string, Tensors>& earlier) {
  const ModelConfig& config = model.config();
  std::vector<std::vector<int32_t>> rows;
  for (const Json& row : json.at("tokens")) {
    rows.push_back(row.get<std::vector<int32_t>>());
  }
  std::vector<const std::vector<int32_t>*> pointers;
  for (const auto& row : rows) pointers.push_back(&row);

  ForwardRequest request;
  request.batch = TokenBatch::Pack(pointers);
  request.logits = json.value("logits", false);
  if (json.contains("stop_at_layer")) {
    request.stop_at_layer = json["stop_at_layer"].get<int>();
  }
  request.start_layer = json.value("start_layer", 0);
  if (json.contains("start_from")) {
    request.start_residual =
        earlier.at(json["start_from"][0].get<std::string>())
            .at(json["start_from"][1].get<std::string>());
  }
  if (json.contains("hooks") && json["hooks"].is_string()) {
    for (const HookPoint& point : AllHookPoints(config)) {
      request.captures.insert(point);
    }
  } else if (json.contains("hooks")) {
    for (const Json& name : json["hooks"]) {
      ASSIGN_OR_RETURN(const HookPoint point,
                       ParseHookPoint(name.get<std::string>(), config));
      request.captures.insert(point);
    }
  }
  std::map<HookPoint, std::pair<double, double>> edits;
  const Json edits_json = json.value("edits", Json::object());
  for (const auto& [name, numbers] : edits_json.items()) {
    ASSIGN_OR_RETURN(const HookPoint point, ParseHookPoint(name, config));
    request.edits.insert(point);
    edits[point] = {numbers[0].get<double>(), numbers[1].get<double>()};
  }
  request.edit = [&](const HookPoint& point, at::Tensor* value) {
    value->mul_(edits.at(point).first).add_(edits.at(point).second);
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(const ForwardResult result, model.Forward(request));
  Tensors tensors;
  for (const auto& [point, tensor] : result.captures) {
    tensors[HookName(point)] = tensor;
  }
  if (result.logits.defined()) tensors["logits"] = result.logits;
  if (result.residual.defined()) tensors["residual"] = result.residual;
  return tensors;
}

// A case with "each".
absl::StatusOr<Tensors> RunEach(const Model& model, Json json) {
  const bool edit = json.at("each") == Json("edit");
  Tensors all;
  for (const HookPoint& point : AllHookPoints(model.config())) {
    if (point.layer > 1 || point.layer == 0) continue;
    const std::string name = HookName(point);
    if (edit) {
      json["edits"] = {{name, {1.1, 0.05}}};
    } else {
      json["hooks"] = Json::array({name});
    }
    ASSIGN_OR_RETURN(const Tensors tensors, RunCase(model, json, {}));
    if (tensors.size() != 1) return absl::InternalError(name);
    all[name] = tensors.begin()->second;
  }
  return all;
}

absl::Status Run(const std::string& request_path, const std::string& folder) {
  ASSIGN_OR_RETURN(const Json request, ReadJsonFile(request_path));
  ASSIGN_OR_RETURN(const auto source,
                   ModelSource::Open(request.at("model").get<std::string>()));
  Model::Options options;
  options.processing = request.value("processing", "raw") == "raw"
                           ? Processing::kRaw
                           : Processing::kFolded;
  options.dtype = request.value("dtype", "float32") == "float32"
                      ? at::kFloat
                      : at::kBFloat16;
  options.device = at::Device(request.value("device", "cpu"));
  ASSIGN_OR_RETURN(const auto model, Model::Load(source, options));
  std::map<std::string, Tensors> done;
  for (const Json& json : request.at("cases")) {
    const auto name = json.at("name").get<std::string>();
    auto tensors = json.contains("each") ? RunEach(*model, json)
                                         : RunCase(*model, json, done);
    if (!tensors.ok()) {
      return absl::Status(
          tensors.status().code(),
          absl::StrCat("case ", name, ": ", tensors.status().message()));
    }
    RETURN_IF_ERROR(
        Write(absl::StrCat(folder, "/", name, ".safetensors"), *tensors));
    done[name] = *std::move(tensors);
  }
  const Json about = {{"fingerprint", source->config().fingerprint},
                      {"digest", storage::ToHex(source->digest())},
                      {"prepend_bos", source->config().default_prepend_bos},
                      {"weight_bytes", source->WeightBytes(options.dtype)},
                      {"resident_bytes", model->resident_bytes()}};
  std::cout << about.dump() << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace cupola::model

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: dump_activations REQUEST.json OUTPUT_FOLDER\n";
    return 2;
  }
  const absl::Status status = cupola::model::Run(argv[1], argv[2]);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}
