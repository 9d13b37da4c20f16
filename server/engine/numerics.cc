#include "server/engine/numerics.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "ATen/Context.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/model/split_matrix.h"
#include "torch/version.h"

namespace cupola::engine {

std::string TorchVersion() { return TORCH_VERSION; }

std::string NumericsFingerprint(const std::string& device) {
  std::string result = absl::StrCat("torch ", TORCH_VERSION, ";", device, ";");
  if (at::Device(device).is_cpu()) {
    // The number counts up where the last bits of split products change.
    absl::StrAppend(&result, at::get_cpu_capability(),
                    model::SplitMatrix::Supported() ? ";split 2" : "");
  } else {
    absl::StrAppend(&result, at::getNumGPUs() > 0 ? "cuda" : "none");
  }
  return result;
}

std::string ResolveDevice(const std::string& device) {
  // The second is the same device to LibTorch and another one to the server,
  // with a worker and memory of its own: what several devices do can be seen
  // without any.
  if (device == "cpu" || device == "cpu:0") return device;
  const int64_t gpus = at::hasCUDA() ? at::getNumGPUs() : 0;
  absl::string_view index = device;
  if (!absl::ConsumePrefix(&index, "cuda")) return "";
  if (index.empty()) return gpus > 0 ? "cuda:0" : "";
  int number = -1;
  if (!absl::ConsumePrefix(&index, ":") || !absl::SimpleAtoi(index, &number) ||
      number < 0 || number >= gpus) {
    return "";
  }
  return absl::StrCat("cuda:", number);
}

absl::StatusOr<std::vector<std::string>> ResolveDevices(
    const std::string& devices) {
  std::vector<std::string> result;
  if (devices == "auto") {
    const int64_t gpus = at::hasCUDA() ? at::getNumGPUs() : 0;
    for (int64_t i = 0; i < gpus; ++i) {
      result.push_back(absl::StrCat("cuda:", i));
    }
    if (result.empty()) result.push_back("cpu");
    return result;
  }
  const std::vector<std::string> names = absl::StrSplit(devices, ',');
  for (const std::string& name : names) {
    const std::string device = ResolveDevice(name);
    if (device.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "no device \"", name, "\" here; use auto, cpu or cuda:N"));
    }
    if (std::count(result.begin(), result.end(), device) > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("device \"", name, "\" is named twice"));
    }
    result.push_back(device);
  }
  return result;
}

}  // namespace cupola::engine
