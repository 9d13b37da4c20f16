#ifndef CUPOLA_TESTS_MODEL_TOKENIZER_TEMP_FOLDER_H_
#define CUPOLA_TESTS_MODEL_TOKENIZER_TEMP_FOLDER_H_

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace cupola::model {

// A folder that is gone when the test is.
class TempFolder {
 public:
  TempFolder() {
    std::string name =
        (std::filesystem::temp_directory_path() / "cupola-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string Write(const std::string& name, const std::string& bytes) const {
    const std::string file = path_ + "/" + name;
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }

 private:
  std::string path_;
};

}  // namespace cupola::model

#endif  // CUPOLA_TESTS_MODEL_TOKENIZER_TEMP_FOLDER_H_
