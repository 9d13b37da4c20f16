#ifndef CUPOLA_SERVER_ENGINE_TOKEN_JOB_H_
#define CUPOLA_SERVER_ENGINE_TOKEN_JOB_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/job_info.h"
#include "server/engine/job_rows.h"
#include "server/engine/question.h"
#include "server/engine/run_requests.h"
#include "server/model/json.h"

// What every job over tokens has in its specification, a JSON text, whatever it
// computes of them: a version, its rows, and how many tokens make a chunk. The
// kind's own options stand beside these.

namespace cupola::engine {

// How a kind cuts its rows. The chunks of a job hang on it: one that changes
// needs another version of the specification.
struct ChunkRule {
  int64_t standard = 4096, most = int64_t{1} << 16;  // tokens of a chunk
  int64_t rows = 4096;                               // ChunkPlan::Rules::rows
  // What a chunk's passes may take in at least, as a multiple of its tokens.
  int64_t passes = 4;
};

// `asked`, or the standard for 0. INVALID_ARGUMENT: none of 0 to rule.most.
absl::StatusOr<int64_t> ChunkTokens(int64_t asked, const ChunkRule& rule);

// A job over tokens, as its specification and the weights that are here say.
struct TokenJob {
  JobRows rows;
  ChunkPlan::Rules rules;
  JobProvenance provenance;
  storage::Digest identity{};
  // Of each dictionary that a chunk asks, in the order of asking.
  struct Weights {
    storage::Digest model{}, dictionary{};
    // Of the features of the job's chunks: what a store of them is known by.
    storage::Digest activations{};
  };
  std::vector<Weights> weights;

  // Whether the answer of dictionary `which` is of these weights, and not of
  // others that have come by its name since: FAILED_PRECONDITION.
  absl::Status CheckSame(const Provenance& answer, size_t which = 0) const;
  // The same of a run that names the dictionaries `which`, `which` + 1, ... in
  // this order, and of what asks the model alone.
  absl::Status CheckSame(const RunAnswer& answer, size_t which = 0) const;
  absl::Status CheckModel(const storage::Digest& digest) const;
};

// The text of a job's specification. `options`: an object, the kind's own.
std::string WriteSpecification(int version, model::Json options,
                               int64_t chunk_tokens, const JobRows& rows);

// The rows, the rules and provenance.parameters of a text, which may have come
// from another machine. `options` takes the kind's own from the object; what it
// throws of Json's means damage: DATA_LOSS. INVALID_ARGUMENT: chunk_tokens;
// FAILED_PRECONDITION: of another version.
absl::StatusOr<TokenJob> ReadSpecification(
    const std::string& text, int version, const ChunkRule& rule,
    const std::function<void(const model::Json&)>& options);

// Fills in the rest. `about_one_token`: of each dictionary in the order of
// asking, the question that a chunk asks it, about OneToken().
void Identify(const std::string& kind, const std::string& text,
              const std::vector<Question>& about_one_token, TokenJob* job);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_TOKEN_JOB_H_
