#include "server/engine/device_memory.h"

#include <unistd.h>

#include <fstream>
#include <utility>

#include "absl/status/statusor.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "c10/core/Device.h"
#include "server/model/torch_status.h"

namespace cupola::engine {
namespace {

absl::StatusOr<DeviceMemory> OfProcess() {
  // The second number of statm: resident pages (proc(5)).
  std::ifstream statm("/proc/self/statm");
  int64_t virtual_pages = 0, resident_pages = 0;
  if (!(statm >> virtual_pages >> resident_pages)) {
    return absl::UnavailableError("cannot read /proc/self/statm");
  }
  const int64_t page = sysconf(_SC_PAGESIZE);
  return DeviceMemory{"cpu", resident_pages * page,
                      sysconf(_SC_PHYS_PAGES) * page};
}

absl::StatusOr<DeviceMemory> Measure(const std::string& name) {
  const c10::Device device(name);
  if (device.is_cpu()) return OfProcess();
  const auto [free, total] =
      c10::getDeviceAllocator(device.type())
          ->getMemoryInfo(device.has_index() ? device.index() : 0);
  return DeviceMemory{name, static_cast<int64_t>(total - free),
                      static_cast<int64_t>(total)};
}

}  // namespace

std::vector<DeviceMemory> MeasureDevices(
    const std::vector<std::string>& devices) {
  std::vector<DeviceMemory> measured;
  for (const std::string& device : devices) {
    auto one = model::CatchTorch("measuring a device's memory",
                                 [&] { return Measure(device); });
    if (one.ok()) measured.push_back(*std::move(one));
  }
  return measured;
}

}  // namespace cupola::engine
