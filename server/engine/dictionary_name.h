#ifndef CUPOLA_SERVER_ENGINE_DICTIONARY_NAME_H_
#define CUPOLA_SERVER_ENGINE_DICTIONARY_NAME_H_

#include <string>

#include "server/dictionary/dictionary_source.h"

namespace cupola::engine {

// A dictionary as requests name it: NAME, or NAME:in / NAME:out for the halves
// of a pair (NAME alone means a pair's input half).
struct DictionaryName {
  std::string entry;
  dictionary::Half half = dictionary::Half::kIn;
  bool names_half = false;
};

// A dictionary's entry, or its half.
struct DictionaryUse {
  std::string entry;
  dictionary::Half half = dictionary::Half::kIn;
};

DictionaryName ParseDictionaryName(const std::string& name);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DICTIONARY_NAME_H_
