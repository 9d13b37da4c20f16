#ifndef CUPOLA_SERVER_MODEL_CONFIG_FIELDS_H_
#define CUPOLA_SERVER_MODEL_CONFIG_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/model/json.h"

namespace cupola::model {

// Reads the fields of a config one after the other and remembers the first
// error, so that the reading code is a plain list: after an error every getter
// returns a harmless value, and status() says what was wrong. A list of keys
// means: the first that is there (Hugging Face has several names for some).
// Null counts as absent. `json` must outlive the object.
class ConfigFields {
 public:
  using Keys = std::initializer_list<const char*>;

  explicit ConfigFields(const Json& json) : json_(json) {}

  // A size: required, between 1 and `max`.
  int64_t Size(Keys keys, int64_t max);
  int64_t SizeOr(Keys keys, int64_t max, int64_t fallback);
  // Absent: nullopt.
  std::optional<int64_t> MaybeSize(Keys keys, int64_t max);
  // A finite number above zero.
  double PositiveOr(Keys keys, double fallback);
  std::optional<double> MaybePositive(Keys keys);
  bool Flag(const char* key, bool fallback);
  std::string Text(Keys keys);
  std::string TextOr(Keys keys, absl::string_view fallback);
  // The value, or null where it is absent.
  const Json& Value(const char* key) const;

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const absl::Status& status() const { return status_; }

 private:
  // The key to read: the first of `keys` that is there, else the first.
  const char* Choose(Keys keys) const;
  template <typename T>
  T Take(absl::StatusOr<T> value, T harmless);

  const Json& json_;
  absl::Status status_;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_CONFIG_FIELDS_H_
