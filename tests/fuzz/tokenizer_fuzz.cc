// tokenizer.json, and texts through what could be made of it.

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "server/model/tokenizer/tokenizer.h"

namespace {

// A folder of this process's own, removed at its end.
struct Folder {
  Folder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "cupola_fuzz_XXXXXX")
            .string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  std::ofstream(folder.path + "/tokenizer.json", std::ios::binary)
      .write(reinterpret_cast<const char*>(data),
             static_cast<std::streamsize>(size));
  const auto tokenizer = cupola::model::Tokenizer::Load(folder.path);
  if (!tokenizer.ok()) return 0;
  for (const char* text :
       {"", " The cat  sat\n", "\xc3\xa9t\xc3\xa9 12345 \xf0\x9f\x98\x80",
        "<s></s><|endoftext|>\t'll", "\xff not UTF-8"}) {
    const auto ids = (*tokenizer)->Encode(text);
    if (!ids.ok()) continue;
    for (const int32_t id : *ids) {
      if (id < 0 || id >= (*tokenizer)->vocabulary_size()) std::abort();
      if (!(*tokenizer)->Piece(id).ok()) std::abort();
    }
    if (!(*tokenizer)->Decode(*ids).ok()) std::abort();
  }
  return 0;
}
