// What a job leaves on the disk: its record, its state file, and the totals in
// that.

#include <xxhash.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "server/analysis/jacobian_totals.h"
#include "server/engine/job_record.h"
#include "storage/state_file.h"
#include "tests/fuzz/memory_file.h"

namespace {

using cupola::analysis::JacobianTotals;
using cupola::storage::StateReader;
using cupola::testing::MemoryFile;

void ReadRecord(absl::string_view text) {
  const auto record = cupola::engine::DecodeJobRecord("a-job", text);
  if (!record.ok()) return;
  // What can be read can be written, and is read again.
  const std::string written = cupola::engine::EncodeJobRecord(*record);
  if (!cupola::engine::DecodeJobRecord("a-job", written).ok()) std::abort();
}

void ReadState(const std::string& bytes) {
  const MemoryFile file(bytes);
  const auto state = StateReader::Open(file.path());
  if (!state.ok()) return;
  JacobianTotals totals({.d_out = 5, .d_in = 3, .bins = 4});
  if (!totals.Restore(state->get()).ok()) return;
  totals.Top(cupola::analysis::JacobianStatistic::kMean,
             cupola::analysis::JacobianDivisor::kTokens, 10);
}

// Makes the bytes pass for a state file that is whole.
std::string Repaired(absl::string_view data) {
  static constexpr char kBegin[] = "CUPSTATE\x01\0\0\0\x01\0\0\0k";
  std::string bytes(kBegin, sizeof(kBegin) - 1);
  const uint32_t version = JacobianTotals::kVersion;
  bytes.append(reinterpret_cast<const char*>(&version), sizeof(version));
  bytes.append(32 + sizeof(int64_t), '\0');  // identity, chunks
  bytes.append(data.data(), data.size());
  const uint64_t size = data.size();
  bytes.append(reinterpret_cast<const char*>(&size), sizeof(size));
  const uint64_t sum = XXH3_64bits(bytes.data(), bytes.size());
  bytes.append(reinterpret_cast<const char*>(&sum), sizeof(sum));
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1,
                               size - 1);
  switch (data[0] % 3) {
    case 0:
      ReadRecord(rest);
      break;
    case 1:
      ReadState(std::string(rest));
      break;
    default:
      ReadState(Repaired(rest));
  }
  return 0;
}
