#include "server/engine/numerics.h"

#include "ATen/ATen.h"
#include "ATen/Context.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/model/split_matrix.h"
#include "torch/version.h"

namespace cupola::engine {

std::string TorchVersion() { return TORCH_VERSION; }

std::string NumericsFingerprint(const std::string& device) {
  std::string result = absl::StrCat("torch ", TORCH_VERSION, ";", device, ";");
  if (device == "cpu") {
    absl::StrAppend(&result, at::get_cpu_capability(),
                    model::SplitMatrix::Supported() ? ";split" : "");
  } else {
    absl::StrAppend(&result, at::getNumGPUs() > 0 ? "cuda" : "none");
  }
  return result;
}

std::string ResolveDevice(const std::string& device) {
  if (device == "cpu") return device;
  const int64_t gpus = at::hasCUDA() ? at::getNumGPUs() : 0;
  if (device == "auto") return gpus > 0 ? "cuda:0" : "cpu";
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

}  // namespace cupola::engine
