#ifndef CUPOLA_SERVER_ANALYSIS_OPTION_CHECKS_H_
#define CUPOLA_SERVER_ANALYSIS_OPTION_CHECKS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace cupola::analysis {

// INVALID_ARGUMENT, with the option's name, its value and what is accepted,
// where it is not `least` to `most`.
inline absl::Status CheckNumber(absl::string_view name, int64_t value,
                                int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      name, " is ", value, "; accepted: ", least, " to ", most));
}

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_OPTION_CHECKS_H_
