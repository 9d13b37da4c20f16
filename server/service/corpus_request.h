#ifndef CUPOLA_SERVER_SERVICE_CORPUS_REQUEST_H_
#define CUPOLA_SERVER_SERVICE_CORPUS_REQUEST_H_

#include <string>

#include "absl/status/status.h"
#include "server/model/status_macros.h"
#include "server/service/datasets_conversion.h"
#include "server/service/prompt_conversion.h"

namespace cupola::service {

// What the requests of all jobs over a dictionary's corpus have in common, under
// the same names: dictionary, others (where the job knows any), rows or prompts,
// positions (where it has them) and processing. Takes the prompts out of
// `request`. INVALID_ARGUMENT naming the field.
template <typename Message, typename Plain>
absl::Status TakeCorpus(Message* request, Plain* plain) {
  RETURN_IF_ERROR(CheckName(request->dictionary(), "dictionary"));
  plain->dictionary = request->dictionary();
  if constexpr (requires { plain->others; }) {
    for (const std::string& other : request->others()) {
      RETURN_IF_ERROR(CheckName(other, "others"));
      plain->others.push_back(other);
    }
  }
  size_t prompts = 0;
  if (request->has_rows()) {
    ASSIGN_OR_RETURN(plain->rows, FromProto(request->rows()));
  }
  if (request->has_prompts() || !request->has_rows()) {
    ASSIGN_OR_RETURN(plain->prompts, TakePrompts(request->mutable_prompts()));
    prompts = plain->prompts->prompts.size();
  }
  if constexpr (requires { plain->positions; }) {
    ASSIGN_OR_RETURN(plain->positions,
                     ToPositions(request->positions(), prompts));
  }
  ASSIGN_OR_RETURN(plain->processing,
                   ProcessingFromProto(request->processing(), "processing"));
  return absl::OkStatus();
}

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_CORPUS_REQUEST_H_
