#include "server/model/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/onig_syntax.h"
#include "server/model/tokenizer/stand_ins.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint32_t kMaxParens = 100;
// Steps of one match: what Oniguruma allows, and more for long texts, where one
// honest match can be the whole text.
constexpr uint32_t kMatchSteps = 10'000'000;
constexpr uint32_t kStepsPerByte = 4;
constexpr uint32_t kHeapKibibytes = 256 << 10;
constexpr size_t kJitStackStart = 32 << 10;
constexpr size_t kJitStackMax = 8 << 20;

// What a thread needs to match; PCRE2 never shares it between two matches.
class Workspace {
 public:
  Workspace()
      : data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        stack_(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)) {
    if (!ok()) return;
    pcre2_set_heap_limit(context_, kHeapKibibytes);
    if (stack_ != nullptr) {  // Without one, JIT uses 32 KiB of our stack.
      pcre2_jit_stack_assign(context_, nullptr, stack_);
    }
  }
  ~Workspace() {
    pcre2_jit_stack_free(stack_);
    pcre2_match_context_free(context_);
    pcre2_match_data_free(data_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  bool ok() const { return data_ != nullptr && context_ != nullptr; }
  pcre2_match_data* data() { return data_; }
  pcre2_match_context* context() { return context_; }

 private:
  pcre2_match_data* const data_;
  pcre2_match_context* const context_;
  pcre2_jit_stack* const stack_;
};

Workspace& ThreadWorkspace() {
  thread_local Workspace workspace;
  return workspace;
}

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[128];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) {
    return absl::StrCat("PCRE2 error ", code);
  }
  return reinterpret_cast<const char*>(buffer);
}

struct CompileContext {
  pcre2_compile_context* const context = pcre2_compile_context_create(nullptr);
  ~CompileContext() { pcre2_compile_context_free(context); }
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Regex>> Regex::Compile(
    absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("regex of ", pattern.size(), " bytes, at most ",
                     kMaxPatternBytes, " are accepted"));
  }
  ASSIGN_OR_RETURN(const std::string translated, TranslateOnigPattern(pattern));
  const CompileContext compile;
  if (compile.context == nullptr) {
    return absl::ResourceExhaustedError("regex: out of memory");
  }
  pcre2_set_newline(compile.context, PCRE2_NEWLINE_LF);
  pcre2_set_bsr(compile.context, PCRE2_BSR_UNICODE);
  pcre2_set_parens_nest_limit(compile.context, kMaxParens);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE, &error,
      &offset, compile.context);
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("regex \"", pattern, "\": ", ErrorText(error)));
  }
  // Where the platform has no JIT this fails, and matching interprets.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return std::unique_ptr<const Regex>(new Regex(std::string(pattern), code));
}

Regex::~Regex() { pcre2_code_free(code_); }

absl::Status Regex::FindAll(absl::string_view text,
                            std::vector<Match>* matches) const {
  Workspace& workspace = ThreadWorkspace();
  if (!workspace.ok()) {
    return absl::ResourceExhaustedError("regex: out of memory");
  }
  std::string buffer;
  const absl::string_view subject = WithStandIns(text, &buffer);
  pcre2_set_match_limit(
      workspace.context(),
      static_cast<uint32_t>(std::min<uint64_t>(
          kMatchSteps + uint64_t{kStepsPerByte} * subject.size(), UINT32_MAX)));
  const auto* const start = reinterpret_cast<PCRE2_SPTR>(subject.data());
  const PCRE2_SIZE* const found = pcre2_get_ovector_pointer(workspace.data());
  bool has_last = false;
  size_t last_end = 0;
  size_t at = 0;
  while (at <= subject.size()) {
    // The text was checked once; PCRE2 need not check it for every match.
    int result =
        pcre2_match(code_, start, subject.size(), at, PCRE2_NO_UTF_CHECK,
                    workspace.data(), workspace.context());
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      // The interpreter keeps its frames on the heap, under its own limit.
      result = pcre2_match(code_, start, subject.size(), at,
                           PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, workspace.data(),
                           workspace.context());
    }
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the pre-tokenizer's regex \"", pattern_,
                       "\" gave up on this text: ", ErrorText(result)));
    }
    const Match match = {found[0], found[1]};
    if (match.begin == match.end && has_last && match.end == last_end) {
      if (at >= subject.size()) break;
      at += CharacterLength(static_cast<unsigned char>(subject[at]));
      continue;
    }
    matches->push_back(match);
    at = last_end = match.end;
    has_last = true;
  }
  return absl::OkStatus();
}

}  // namespace cupola::model::tokenizer
