#ifndef CUPOLA_SERVER_SERVICE_BRIDGE_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_BRIDGE_CONVERSION_H_

#include <utility>

#include "absl/status/status.h"
#include "server/model/status_macros.h"
#include "server/service/prompt_conversion.h"

namespace cupola::service {

// What every question between two dictionaries has: their names, the
// processing, and prompts or inputs. Errors as in prompt_conversion.h.
template <typename Message, typename Plain>
absl::Status TakeBridge(Message* request, Plain* plain) {
  RETURN_IF_ERROR(CheckName(request->dictionary(), "dictionary"));
  plain->dictionary = std::move(*request->mutable_dictionary());
  plain->output_dictionary = std::move(*request->mutable_output_dictionary());
  ASSIGN_OR_RETURN(plain->processing,
                   ProcessingFromProto(request->processing(), "processing"));
  if (request->has_prompts()) return TakeSelection(request, plain);
  if (!request->has_inputs()) {
    return absl::InvalidArgumentError(
        "the request has no source; accepted: prompts or inputs");
  }
  RETURN_IF_ERROR(RefusePositions(request->has_positions(), "inputs"));
  ASSIGN_OR_RETURN(plain->inputs, TakeInputs(request->mutable_inputs()));
  return absl::OkStatus();
}

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_BRIDGE_CONVERSION_H_
