#ifndef CUPOLA_SERVER_ENGINE_JOB_PROMPTS_H_
#define CUPOLA_SERVER_ENGINE_JOB_PROMPTS_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/engine/job_kind.h"

namespace cupola::engine {

// What a job's request goes over, resolved.
struct ResolvedRows {
  JobRows rows;
  model::Processing processing = model::Processing::kRaw;
};

// Prompts, or rows of a dataset: exactly one of the two is set
// (INVALID_ARGUMENT else). `ask` makes the question that the job asks of some
// prompts and checks it so; of a dataset it is asked about one token. Errors
// are those of `ask`, of JobRows, and INVALID_ARGUMENT where no position is
// looked at.
absl::StatusOr<ResolvedRows> ResolveRows(
    const std::optional<Prompts>& prompts,
    const std::optional<DatasetRows>& rows, const Positions& positions,
    const Sources& sources, const JobHost& host, const RequestContext& context,
    const std::function<absl::StatusOr<Question>(const Prompts&,
                                                 const Positions&)>& ask);

// The prompt of a question that asks for digests alone.
Prompts OneToken();

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_PROMPTS_H_
