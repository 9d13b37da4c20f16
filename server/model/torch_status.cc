#include "server/model/torch_status.h"

#include <exception>
#include <new>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"

namespace cupola::model {
namespace {

// The CPU allocator throws a plain c10::Error, so its text has to be read.
bool SaysOutOfMemory(const std::string& message) {
  return absl::StrContains(message, "out of memory") ||
         absl::StrContains(message, "not enough memory") ||
         absl::StrContains(message, "can't allocate memory");
}

absl::Status MakeStatus(absl::string_view doing, const std::string& message) {
  // The first line: the rest is LibTorch's own stack.
  const std::string text =
      absl::StrCat(doing, ": ", message.substr(0, message.find('\n')));
  return SaysOutOfMemory(message) ? absl::ResourceExhaustedError(text)
                                  : absl::InternalError(text);
}

}  // namespace

absl::Status StatusOfTorchException(absl::string_view doing) {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat(doing, ": out of device memory"));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat(doing, ": out of host memory"));
  } catch (const c10::Error& error) {
    return MakeStatus(doing, error.what_without_backtrace());
  } catch (const std::exception& error) {
    return MakeStatus(doing, error.what());
  } catch (...) {
    return absl::InternalError(absl::StrCat(doing, ": unknown exception"));
  }
}

}  // namespace cupola::model
