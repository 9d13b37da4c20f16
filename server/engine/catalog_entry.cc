#include "server/engine/catalog_entry.h"

#include <algorithm>

#include "server/analysis/tensor_io.h"

namespace cupola::engine {
namespace {

// The first failure among an entry's slots.
template <typename Entry>
absl::Status FailureOf(const Entry& entry) {
  absl::Status status = entry.broken;
  status.Update(entry.source.status());
  for (const auto& [which, slot] : entry.weights) status.Update(slot.status());
  return status;
}

}  // namespace

template <typename Entry>
bool IsLoading(const Entry& entry) {
  bool loading = entry.source.loading();
  for (const auto& [which, slot] : entry.weights) loading |= slot.loading();
  return loading;
}

namespace {

// How much of its files the load that runs has read; 0: none runs. The files
// are read to be hashed and to be loaded, some tensors twice.
template <typename Entry>
double LoadProgress(const Entry& entry) {
  if (!IsLoading(entry) || !entry.source.ready()) return 0;
  int64_t bytes = 0;
  for (const auto& [name, extent] : entry.source.value()->tensors().tensors()) {
    bytes += static_cast<int64_t>(extent.bytes);
  }
  const int64_t read = entry.monitor->bytes() - entry.load_began;
  return bytes == 0 ? 0 : std::min(1.0, static_cast<double>(read) / bytes);
}

}  // namespace

template <typename Entry>
State StateOf(const Entry& entry) {
  bool resident = false;
  for (const auto& [which, slot] : entry.weights) resident |= slot.ready();
  if (resident) return State::kResident;
  if (IsLoading(entry)) return State::kLoading;
  if (!FailureOf(entry).ok()) return State::kFailed;
  return entry.was_resident ? State::kEvicted : State::kRegistered;
}

template <typename Entry>
void ForgetFailures(Entry& entry) {
  if (entry.source.failed()) entry.source.Reset();
  for (auto& [which, slot] : entry.weights) {
    if (slot.failed()) slot.Reset();
  }
}

template <typename Entry>
int64_t ResidentBytes(const Entry& entry) {
  int64_t bytes = 0;
  for (const auto& [which, slot] : entry.weights) {
    if (slot.ready()) bytes += slot.value()->resident_bytes();
  }
  return bytes;
}

template <typename T>
std::shared_ptr<const void> DropSlot(WeightSlot<T>& slot) {
  if (auto charge = slot.charge.lock()) charge->Leave();
  std::shared_ptr<const void> dropped = slot.value();
  slot.Reset();
  return dropped;
}

template <typename Entry>
std::vector<std::shared_ptr<const void>> DropWeights(Entry& entry) {
  std::vector<std::shared_ptr<const void>> dropped;
  for (auto& [which, slot] : entry.weights) {
    if (slot.ready()) {
      dropped.push_back(DropSlot(slot));
    } else if (!slot.loading()) {
      slot.Reset();
    }
  }
  entry.load_seconds = 0;
  return dropped;
}

template bool IsLoading(const ModelEntry&);
template bool IsLoading(const DictionaryEntry&);
template State StateOf(const ModelEntry&);
template State StateOf(const DictionaryEntry&);
template int64_t ResidentBytes(const ModelEntry&);
template int64_t ResidentBytes(const DictionaryEntry&);
template void ForgetFailures(ModelEntry&);
template void ForgetFailures(DictionaryEntry&);
template std::vector<std::shared_ptr<const void>> DropWeights(ModelEntry&);
template std::vector<std::shared_ptr<const void>> DropWeights(DictionaryEntry&);
template std::shared_ptr<const void> DropSlot(WeightSlot<ModelPtr>&);
template std::shared_ptr<const void> DropSlot(WeightSlot<DictionaryPtr>&);

ModelStatus StatusOf(const ModelEntry& entry) {
  ModelStatus status;
  status.spec = entry.spec;
  status.state = StateOf(entry);
  status.failure = std::string(FailureOf(entry).message());
  status.device = entry.device;
  status.load_seconds = entry.load_seconds;
  status.resident_bytes = ResidentBytes(entry);
  status.load_progress = LoadProgress(entry);
  for (const auto& [processing, slot] : entry.weights) {
    if (slot.ready()) status.resident_processing.push_back(processing);
  }
  if (entry.source.ready()) {
    const model::ModelSource& source = *entry.source.value();
    status.config = source.config();
    status.digest = source.digest();
    status.bos_token_id = source.tokenizer().bos_id();
    status.weight_bytes =
        source.WeightBytes(analysis::ToScalarType(entry.spec.dtype));
  }
  return status;
}

DictionaryStatus StatusOf(const DictionaryEntry& entry) {
  DictionaryStatus status;
  status.spec = entry.spec;
  status.state = StateOf(entry);
  status.failure = std::string(FailureOf(entry).message());
  status.load_seconds = entry.load_seconds;
  status.resident_bytes = ResidentBytes(entry);
  status.load_progress = LoadProgress(entry);
  status.checked = entry.checked;
  if (entry.source.ready()) {
    status.manifest = entry.source.value()->manifest();
    status.digest = entry.source.value()->digest();
  }
  return status;
}

}  // namespace cupola::engine
