#include "server/model/json.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

constexpr int kMaxDepth = 64;

// The first byte that opens a level deeper than kMaxDepth, or npos.
size_t FindTooDeep(absl::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return i;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return absl::string_view::npos;
}

absl::Status WrongType(const char* key, const Json& value, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", key, "\" is of type ", value.type_name(), ", expected ", wanted));
}

// The member, or null where it is absent or JSON's null.
absl::StatusOr<const Json*> Member(const Json& json, const char* key) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\" is looked up in a JSON ", json.type_name(),
                     ", expected an object"));
  }
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return nullptr;
  return &*it;
}

absl::Status Missing(const char* key) {
  return absl::InvalidArgumentError(absl::StrCat("\"", key, "\" is missing"));
}

absl::StatusOr<int64_t> ToInt(const Json& value, const char* key) {
  if (!value.is_number_integer()) return WrongType(key, value, "an integer");
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\" is ", value.get<uint64_t>(),
                     ", which does not fit 64 signed bits"));
  }
  return value.get<int64_t>();
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view what) {
  const size_t deep = FindTooDeep(text);
  if (deep != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": JSON nests deeper than ", kMaxDepth,
                     " levels at byte ", deep));
  }
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": not JSON at byte ", error.byte));
  } catch (const Json::exception&) {
    // A number beyond the range of double.
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": JSON with a number that is out of range"));
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes) {
  // O_NONBLOCK: opening a pipe without a writer must not hang.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    const std::string message = absl::StrCat(path, ": ", std::strerror(error));
    return error == ENOENT || error == ENOTDIR
               ? absl::NotFoundError(message)
               : absl::InvalidArgumentError(message);
  }
  const absl::Cleanup closer = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a regular file"));
  }
  if (info.st_size > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", info.st_size,
                                                   " bytes, at most ",
                                                   max_bytes, " are accepted"));
  }
  std::string bytes(info.st_size, '\0');
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = read(fd, bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": ", std::strerror(errno)));
    }
    if (got == 0) break;  // It was cut while we read: parsers will notice.
    have += got;
  }
  bytes.resize(have);
  return bytes;
}

absl::StatusOr<Json> ReadJsonFile(const std::string& path, int64_t max_bytes) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, max_bytes));
  return ParseJson(text, path);
}

absl::StatusOr<int64_t> IntOr(const Json& json, const char* key,
                              int64_t fallback) {
  ASSIGN_OR_RETURN(const Json* value, Member(json, key));
  if (value == nullptr) return fallback;
  return ToInt(*value, key);
}

absl::StatusOr<double> DoubleOr(const Json& json, const char* key,
                                double fallback) {
  ASSIGN_OR_RETURN(const Json* value, Member(json, key));
  if (value == nullptr) return fallback;
  if (!value->is_number()) return WrongType(key, *value, "a number");
  return value->get<double>();
}

absl::StatusOr<bool> BoolOr(const Json& json, const char* key, bool fallback) {
  ASSIGN_OR_RETURN(const Json* value, Member(json, key));
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return WrongType(key, *value, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> StringOr(const Json& json, const char* key,
                                     absl::string_view fallback) {
  ASSIGN_OR_RETURN(const Json* value, Member(json, key));
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) return WrongType(key, *value, "a string");
  return value->get<std::string>();
}

absl::StatusOr<int64_t> RequiredInt(const Json& json, const char* key) {
  ASSIGN_OR_RETURN(const Json* value, Member(json, key));
  if (value == nullptr) return Missing(key);
  return ToInt(*value, key);
}

absl::StatusOr<std::string> RequiredString(const Json& json, const char* key) {
  ASSIGN_OR_RETURN(const Json* value, Member(json, key));
  if (value == nullptr) return Missing(key);
  if (!value->is_string()) return WrongType(key, *value, "a string");
  return value->get<std::string>();
}

}  // namespace cupola::model
