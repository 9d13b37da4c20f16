#ifndef CUPOLA_SERVER_ENGINE_DEVICE_MEMORY_H_
#define CUPOLA_SERVER_ENGINE_DEVICE_MEMORY_H_

#include <cstdint>
#include <string>
#include <vector>

namespace cupola::engine {

// A device that models compute on. Of a GPU: what all processes use of its
// memory. Of the CPU: what this process has resident, and the machine's memory.
struct DeviceMemory {
  std::string device;
  int64_t used_bytes = 0, capacity_bytes = 0;
};

// `devices` as LibTorch names them, "cpu" or "cuda:0". A device that does not
// tell is left out. Asks the driver and the system, so a few microseconds; any
// thread may call.
std::vector<DeviceMemory> MeasureDevices(
    const std::vector<std::string>& devices);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DEVICE_MEMORY_H_
