#include "server/analysis/intervention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/tensor_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

std::vector<float> Floats(const storage::Array& array) {
  std::vector<float> values(array.bytes.size() / sizeof(float));
  std::memcpy(values.data(), array.bytes.data(), array.bytes.size());
  return values;
}

absl::Status CheckIndices(const std::vector<int64_t>& indices, int64_t size,
                          const std::string& field) {
  std::set<int64_t> seen;
  for (int64_t index : indices) {
    if (index < 0 || index >= size) {
      return InvalidArgumentError(
          StrCat(field, ": ", index, " is not below ", size));
    }
    if (!seen.insert(index).second) {
      return InvalidArgumentError(StrCat(field, ": ", index, " comes twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNarrowing(const Intervention& intervention,
                            const std::vector<int64_t>& shape,
                            const std::string& field) {
  const std::string name = model::HookName(intervention.hook);
  if (!intervention.heads.empty() && shape.size() < 2) {
    return InvalidArgumentError(
        StrCat(field, ".heads: ", name, " has no heads; accepted: none"));
  }
  if (!intervention.neurons.empty() && shape.back() < 0) {
    return InvalidArgumentError(
        StrCat(field, ".neurons: ", name,
               " has one entry per key, not neurons; accepted: none"));
  }
  RETURN_IF_ERROR(
      CheckIndices(intervention.heads, shape.front(), field + ".heads"));
  return CheckIndices(intervention.neurons, shape.back(), field + ".neurons");
}

// The shape of what a position has of the heads and neurons that change.
std::vector<int64_t> Narrowed(const Intervention& intervention,
                              std::vector<int64_t> shape) {
  if (!intervention.heads.empty() && shape.size() > 1) {
    shape.front() = static_cast<int64_t>(intervention.heads.size());
  }
  if (!intervention.neurons.empty()) {
    shape.back() = static_cast<int64_t>(intervention.neurons.size());
  }
  return shape;
}

int64_t Product(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

absl::Status CheckValue(const Intervention& intervention,
                        const std::vector<int64_t>& shape,
                        const std::string& field) {
  const std::vector<int64_t> narrowed = Narrowed(intervention, shape);
  const int64_t last = narrowed.back();
  const int64_t heads = narrowed.size() < 2 ? 1 : narrowed.front();
  const std::vector<float> values = Floats(intervention.value);
  const int64_t size = static_cast<int64_t>(values.size());
  const bool square = last < 0;
  const int64_t rows =
      intervention.per_position ? intervention.value.shape.front() : 1;
  if (!intervention.per_position && size != 1 &&
      (square || (size != last && size != heads * last))) {
    std::set<int64_t> accepted = {1};
    if (!square) accepted.insert({last, heads * last});
    return InvalidArgumentError(StrCat(
        field, ".value: ", size, " numbers for ",
        model::HookName(intervention.hook),
        "; accepted: ", absl::StrJoin(accepted, " or "),
        square ? "" : ", or so many for each position, [positions, ...]"));
  }
  double norm = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (!std::isfinite(values[i])) {
      return InvalidArgumentError(
          StrCat(field, ".value: ", values[i], " is not finite"));
    }
    if (i % (size / rows) == 0) norm = 0;
    norm += double{values[i]} * values[i];
    const bool ends = (i + 1) % (size / rows) == 0;
    if (intervention.change == Change::kProjectOut && ends && norm == 0) {
      return InvalidArgumentError(StrCat(
          field, ".value: all zero, which is no direction to project out"));
    }
  }
  if (intervention.change != Change::kProjectOut) return absl::OkStatus();
  if (square) {
    return InvalidArgumentError(
        StrCat(field, ".hook: ", model::HookName(intervention.hook),
               " has no directions; accepted: a hook point with a width"));
  }
  if (size == 1 && last != 1) {
    return InvalidArgumentError(
        StrCat(field, ".value: one number is no direction; accepted: ", last,
               " or ", heads * last));
  }
  return absl::OkStatus();
}

absl::Status CheckLatents(const Intervention& intervention,
                          const dictionary::Manifest& manifest,
                          const std::string& field) {
  const char* name =
      intervention.change == Change::kReconstruct ? ".overrides" : ".latents";
  if (intervention.latents.empty() &&
      intervention.change != Change::kReconstruct) {
    return InvalidArgumentError(
        StrCat(field, name, ": empty; accepted: at least one latent"));
  }
  for (int32_t latent : intervention.latents) {
    if (latent < 0 || latent >= manifest.d_sae) {
      return InvalidArgumentError(StrCat(
          field, name, ": ", latent, " is not below d_sae = ", manifest.d_sae));
    }
  }
  for (float value : intervention.values) {
    if (!std::isfinite(value)) {
      return InvalidArgumentError(
          StrCat(field, name, ": the value ", value, " is not finite"));
    }
  }
  if (model::ForwardOrder(intervention.hook_in) >
      model::ForwardOrder(intervention.hook)) {
    return InvalidArgumentError(
        StrCat(field, ".dictionary: it reads ",
               model::HookName(intervention.hook_in), ", which comes after ",
               model::HookName(intervention.hook), ", where it writes"));
  }
  return absl::OkStatus();
}

// Whether two narrowings have a part in common; empty means all.
bool Overlap(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  if (a.empty() || b.empty()) return true;
  return std::any_of(a.begin(), a.end(), [&](int64_t index) {
    return std::find(b.begin(), b.end(), index) != b.end();
  });
}

bool Contradict(const Intervention& a, const Intervention& b) {
  if (a.hook != b.hook) return false;
  if (a.replaces() && b.replaces()) {
    return Overlap(a.heads, b.heads) && Overlap(a.neurons, b.neurons);
  }
  if (!a.on_latents() || !b.on_latents() || a.dictionary != b.dictionary) {
    return false;
  }
  return std::any_of(a.latents.begin(), a.latents.end(), [&](int32_t latent) {
    return std::binary_search(b.latents.begin(), b.latents.end(), latent);
  });
}

}  // namespace

bool Intervention::replaces() const {
  switch (change) {
    case Change::kZero:
    case Change::kSet:
    case Change::kPatch:
    case Change::kReconstruct:
      return true;
    case Change::kSetLatents:
      return !keep_error;
    default:
      return false;
  }
}

void FitValue(const model::ModelConfig& config, Intervention* intervention) {
  storage::Array& value = intervention->value;
  const std::vector<int64_t> full =
      model::HookShape(intervention->hook, config);
  if (value.shape.empty() || full.back() < 0 ||
      (!intervention->heads.empty() && full.size() < 2) ||
      !CheckNarrowing(*intervention, full, "").ok()) {
    return;  // refused, where it is wrong, by CheckIntervention
  }
  const std::vector<int64_t> narrowed = Narrowed(*intervention, full);
  // A dimension more than a position has; one row stands for all positions.
  const int64_t rows =
      value.shape.size() == full.size() + 1 ? value.shape.front() : 1;
  const int64_t size = Product(value.shape);
  at::Tensor wide = ViewOf(value);
  if (size == rows * Product(full) && narrowed != full) {
    wide =
        wide.reshape({rows, full.size() < 2 ? 1 : full.front(), full.back()});
    if (!intervention->heads.empty()) {
      wide = wide.index_select(1, at::tensor(intervention->heads, at::kLong));
    }
    if (!intervention->neurons.empty()) {
      wide = wide.index_select(2, at::tensor(intervention->neurons, at::kLong));
    }
  } else if (size != rows * Product(narrowed)) {
    return;
  }
  std::vector<int64_t> shape = {size == 0 ? 0 : wide.numel()};
  if (rows > 1) {
    intervention->per_position = true;
    shape = narrowed;
    shape.insert(shape.begin(), rows);
  }
  value = ToArray(wide.reshape(shape), storage::DType::kFloat32);
}

absl::Status CheckIntervention(const Intervention& intervention,
                               const dictionary::Manifest* manifest,
                               const model::ModelConfig& config,
                               const std::string& field) {
  if (!std::isfinite(intervention.factor)) {
    return InvalidArgumentError(StrCat(
        field, intervention.change == Change::kAdd ? ".scale: " : ".factor: ",
        intervention.factor, " is not finite"));
  }
  if (intervention.on_latents()) {
    return CheckLatents(intervention, *manifest, field);
  }
  const std::vector<int64_t> shape =
      model::HookShape(intervention.hook, config);
  RETURN_IF_ERROR(CheckNarrowing(intervention, shape, field));
  switch (intervention.change) {
    case Change::kSet:
    case Change::kAdd:
    case Change::kProjectOut:
      return CheckValue(intervention, shape, field);
    case Change::kPatch:
      if (shape.back() >= 0) return absl::OkStatus();
      return InvalidArgumentError(
          StrCat(field, ".hook: ", model::HookName(intervention.hook),
                 " has one entry per key and cannot be patched"));
    default:
      return absl::OkStatus();
  }
}

absl::Status CheckAgreement(const std::vector<PlacedIntervention>& placed,
                            const std::vector<std::string>& fields) {
  for (size_t i = 0; i < placed.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (!Contradict(*placed[j].intervention, *placed[i].intervention)) {
        continue;
      }
      std::vector<int64_t> both;
      std::set_intersection(
          placed[i].positions.begin(), placed[i].positions.end(),
          placed[j].positions.begin(), placed[j].positions.end(),
          std::back_inserter(both));
      if (both.empty()) continue;
      const bool latents = !placed[i].intervention->replaces() ||
                           !placed[j].intervention->replaces();
      return InvalidArgumentError(StrCat(
          fields[i], latents ? ".latents" : ".positions", ": contradicts ",
          fields[j], ": both decide the same ", latents ? "latents" : "values",
          " of ", model::HookName(placed[i].intervention->hook),
          " at position ", both.front()));
    }
  }
  return absl::OkStatus();
}

void AddToIdentity(const Intervention& intervention, storage::Hasher* hasher) {
  hasher->AddInt(static_cast<int64_t>(intervention.change))
      .AddBytes(model::HookName(intervention.hook))
      .AddInts(intervention.heads.data(), intervention.heads.size())
      .AddInts(intervention.neurons.data(), intervention.neurons.size())
      .AddInts(intervention.value.shape.data(), intervention.value.shape.size())
      .AddInt(intervention.per_position)
      .AddBytes(intervention.value.bytes)
      .AddDouble(intervention.factor)
      .AddInt(intervention.dictionary)
      .AddInts(intervention.latents.data(), intervention.latents.size())
      .AddInt(intervention.keep_error);
  for (float value : intervention.values) hasher->AddDouble(value);
}

bool IsSquare(const model::HookPoint& hook) {
  return hook.kind == model::HookKind::kAttnScores ||
         hook.kind == model::HookKind::kPattern;
}

}  // namespace cupola::analysis
