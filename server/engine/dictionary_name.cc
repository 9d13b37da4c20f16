#include "server/engine/dictionary_name.h"

#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace cupola::engine {

DictionaryName ParseDictionaryName(const std::string& name) {
  absl::string_view entry = name;
  if (absl::ConsumeSuffix(&entry, ":in")) {
    return {std::string(entry), dictionary::Half::kIn, true};
  }
  if (absl::ConsumeSuffix(&entry, ":out")) {
    return {std::string(entry), dictionary::Half::kOut, true};
  }
  return {name, dictionary::Half::kIn, false};
}

}  // namespace cupola::engine
