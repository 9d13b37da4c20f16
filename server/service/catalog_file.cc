#include "server/service/catalog_file.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cupola/v1/catalog_config.pb.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"
#include "server/service/catalog_conversion.h"
#include "server/service/model_root.h"

namespace cupola::service {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxCatalogBytes = 16 << 20;

// Keeps the first error; the parser counts lines and columns from 0.
class FirstError final : public google::protobuf::io::ErrorCollector {
 public:
  explicit FirstError(const std::string& path) : path_(path) {}
  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (!text_.empty()) return;
    text_ = line < 0 ? absl::StrCat(path_, ": ", message)
                     : absl::StrCat(path_, ":", line + 1, ":", column + 1, ": ",
                                    message);
  }
  const std::string& text() const { return text_; }

 private:
  const std::string path_;
  std::string text_;
};

// Replaces an entry's path by where it leads.
absl::Status Resolve(const ModelRoot& root, const fs::path& folder,
                     const std::string& name, std::string* path) {
  absl::StatusOr<std::string> resolved = root.Resolve(folder, *path);
  if (!resolved.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("path of \"", name, "\": ", resolved.status().message()));
  }
  *path = *std::move(resolved);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<engine::CatalogSpec> ParseCatalog(
    absl::string_view text, const std::string& path,
    const std::string& model_root) {
  v1::CatalogConfig config;
  FirstError error(path);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(std::string(text), &config)) {
    return absl::InvalidArgumentError(error.text());
  }
  ASSIGN_OR_RETURN(const ModelRoot root, ModelRoot::Create(model_root));
  std::error_code error_code;
  const fs::path folder = fs::absolute(path, error_code).parent_path();
  // An entry's error does not know the file.
  const auto located = [&path](const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat(path, ": ", status.message()));
  };
  engine::CatalogSpec catalog;
  for (const v1::ModelEntry& entry : config.model()) {
    absl::StatusOr<engine::ModelSpec> spec = FromProto(entry);
    if (!spec.ok()) return located(spec.status());
    const absl::Status resolved =
        Resolve(root, folder, spec->name, &spec->path);
    if (!resolved.ok()) return located(resolved);
    catalog.models.push_back(*std::move(spec));
  }
  for (const v1::DictionaryEntry& entry : config.dictionary()) {
    absl::StatusOr<engine::DictionarySpec> spec = FromProto(entry);
    if (!spec.ok()) return located(spec.status());
    const absl::Status resolved =
        Resolve(root, folder, spec->name, &spec->path);
    if (!resolved.ok()) return located(resolved);
    catalog.dictionaries.push_back(*std::move(spec));
  }
  return catalog;
}

absl::StatusOr<engine::CatalogSpec> ReadCatalogFile(
    const std::string& path, const std::string& model_root) {
  ASSIGN_OR_RETURN(const std::string text,
                   model::ReadFile(path, kMaxCatalogBytes));
  return ParseCatalog(text, path, model_root);
}

}  // namespace cupola::service
