#ifndef CUPOLA_SERVER_ENGINE_NUMERICS_H_
#define CUPOLA_SERVER_ENGINE_NUMERICS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cupola::engine {

// What besides the weights and the request can change an answer's last bits:
// the library's version, the device's type and its instruction set. Part of
// every cache key.
std::string NumericsFingerprint(const std::string& device);

// The torch device of a name ("cpu", "cpu:0", "cuda", "cuda:1"). Empty where it
// does not exist here.
std::string ResolveDevice(const std::string& device);

// Those of a flag: several with commas between them, or "auto": all GPUs where
// there are some, else the CPU. INVALID_ARGUMENT names one that does not exist
// here, or is named twice.
absl::StatusOr<std::vector<std::string>> ResolveDevices(
    const std::string& devices);

std::string TorchVersion();

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_NUMERICS_H_
