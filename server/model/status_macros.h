#ifndef CUPOLA_SERVER_MODEL_STATUS_MACROS_H_
#define CUPOLA_SERVER_MODEL_STATUS_MACROS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// RETURN_IF_ERROR(expr): leaves the function with the status unless it is OK.
// ASSIGN_OR_RETURN(auto x, expr): the same for a StatusOr, else assigns its
// value.
#define CUPOLA_CONCAT_INNER_(a, b) a##b
#define CUPOLA_CONCAT_(a, b) CUPOLA_CONCAT_INNER_(a, b)

#define RETURN_IF_ERROR(expr)                        \
  do {                                               \
    absl::Status cupola_status_ = (expr);            \
    if (!cupola_status_.ok()) return cupola_status_; \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  CUPOLA_ASSIGN_OR_RETURN_(CUPOLA_CONCAT_(cupola_result_, __LINE__), lhs, expr)
#define CUPOLA_ASSIGN_OR_RETURN_(result, lhs, expr) \
  auto result = (expr);                             \
  if (!result.ok()) return result.status();         \
  lhs = std::move(result).value()

#endif  // CUPOLA_SERVER_MODEL_STATUS_MACROS_H_
