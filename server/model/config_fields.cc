#include "server/model/config_fields.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace cupola::model {

const Json& ConfigFields::Value(const char* key) const {
  static const Json& null = *new Json(nullptr);
  const auto it = json_.find(key);
  return it == json_.end() ? null : *it;
}

const char* ConfigFields::Choose(Keys keys) const {
  for (const char* key : keys) {
    if (!Value(key).is_null()) return key;
  }
  return *keys.begin();
}

template <typename T>
T ConfigFields::Take(absl::StatusOr<T> value, T harmless) {
  if (value.ok()) return std::move(value).value();
  Fail(value.status());
  return harmless;
}

int64_t ConfigFields::Size(Keys keys, int64_t max) {
  const char* key = Choose(keys);
  const int64_t value = Take(RequiredInt(json_, key), int64_t{1});
  if (value < 1 || value > max) {
    Fail(absl::InvalidArgumentError(absl::StrCat(
        "config field '", key, "' is ", value, ", not in 1 to ", max)));
    return 1;
  }
  return value;
}

std::optional<int64_t> ConfigFields::MaybeSize(Keys keys, int64_t max) {
  if (Value(Choose(keys)).is_null()) return std::nullopt;
  return Size(keys, max);
}

int64_t ConfigFields::SizeOr(Keys keys, int64_t max, int64_t fallback) {
  return MaybeSize(keys, max).value_or(fallback);
}

std::optional<double> ConfigFields::MaybePositive(Keys keys) {
  const char* key = Choose(keys);
  if (Value(key).is_null()) return std::nullopt;
  const double value = Take(DoubleOr(json_, key, 1), 1.0);
  if (!std::isfinite(value) || value <= 0) {
    Fail(absl::InvalidArgumentError(
        absl::StrCat("config field '", key, "' is ", value,
                     ", not a finite number above 0")));
    return 1.0;
  }
  return value;
}

double ConfigFields::PositiveOr(Keys keys, double fallback) {
  return MaybePositive(keys).value_or(fallback);
}

bool ConfigFields::Flag(const char* key, bool fallback) {
  return Take(BoolOr(json_, key, fallback), fallback);
}

std::string ConfigFields::Text(Keys keys) {
  return Take(RequiredString(json_, Choose(keys)), std::string());
}

std::string ConfigFields::TextOr(Keys keys, absl::string_view fallback) {
  return Take(StringOr(json_, Choose(keys), fallback), std::string(fallback));
}

}  // namespace cupola::model
