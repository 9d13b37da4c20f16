#ifndef CUPOLA_SERVER_ENGINE_NUMERICS_H_
#define CUPOLA_SERVER_ENGINE_NUMERICS_H_

#include <string>

namespace cupola::engine {

// What besides the weights and the request can change an answer's last bits:
// the library's version, the device's type and its instruction set. Part of
// every cache key.
std::string NumericsFingerprint(const std::string& device);

// The torch device that a flag names: "auto" is the first GPU where there is
// one, else the CPU. Empty where the device does not exist here.
std::string ResolveDevice(const std::string& device);

std::string TorchVersion();

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_NUMERICS_H_
