// Every request message, from its bytes to the plain struct that the engine is
// given.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "server/service/attribution_conversion.h"
#include "server/service/catalog_conversion.h"
#include "server/service/datasets_conversion.h"
#include "server/service/directions_conversion.h"
#include "server/service/feature_statistics_conversion.h"
#include "server/service/generate_conversion.h"
#include "server/service/jacobian_conversion.h"
#include "server/service/jobs_conversion.h"
#include "server/service/means_conversion.h"
#include "server/service/request_conversion.h"
#include "server/service/run_conversion.h"
#include "server/service/weights_conversion.h"
#include "tests/fuzz/request_types.h"

namespace {

template <typename Message>
void Convert(const char* data, int size) {
  Message message;
  if (!message.ParseFromArray(data, size)) return;
  const auto request = cupola::service::FromProto(std::move(message));
  // The codes that design allows for what needs no catalog to be refused.
  if (!request.ok() &&
      request.status().code() != absl::StatusCode::kInvalidArgument &&
      request.status().code() != absl::StatusCode::kResourceExhausted &&
      request.status().code() != absl::StatusCode::kUnimplemented) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  cupola::testing::ForEachRequestType([=](size_t number, auto message) {
    if (number == data[0]) {
      Convert<decltype(message)>(reinterpret_cast<const char*>(data) + 1,
                                 static_cast<int>(size - 1));
    }
  });
  return 0;
}
