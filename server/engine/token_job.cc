#include "server/engine/token_job.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

using model::Json;

absl::StatusOr<int64_t> ChunkTokens(int64_t asked, const ChunkRule& rule) {
  if (asked < 0 || asked > rule.most) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk_tokens is ", asked,
                     "; accepted: 0 (the server's choice) to ", rule.most));
  }
  return asked > 0 ? asked : rule.standard;
}

absl::Status TokenJob::CheckSame(const Provenance& answer, size_t which) const {
  const Weights& at_first = weights.at(which);
  if (answer.model_digest == at_first.model &&
      answer.dictionary_digest == at_first.dictionary) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the weights of ", answer.model, " or ", answer.dictionary,
                   " are others than when the job began"));
}

absl::Status TokenJob::CheckSame(const RunAnswer& answer, size_t which) const {
  RETURN_IF_ERROR(CheckModel(answer.provenance.model_digest));
  for (const storage::Digest& digest : answer.dictionary_digests) {
    if (digest != weights.at(which++).dictionary) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the weights of ", provenance.dictionaries.at(which - 1).first,
          " are others than when the job began"));
    }
  }
  return absl::OkStatus();
}

absl::Status TokenJob::CheckModel(const storage::Digest& digest) const {
  if (digest == provenance.model_digest) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the weights of ", provenance.model,
                   " are others than when the job began"));
}

std::string WriteSpecification(int version, Json options, int64_t chunk_tokens,
                               const JobRows& rows) {
  options["version"] = version;
  options["chunk_tokens"] = chunk_tokens;
  options["rows"] = rows.ToJson();
  return options.dump();
}

absl::StatusOr<TokenJob> ReadSpecification(
    const std::string& text, int version, const ChunkRule& rule,
    const std::function<void(const Json&)>& options) {
  TokenJob job;
  ASSIGN_OR_RETURN(Json json,
                   model::ParseJson(text, "the job's specification"));
  try {
    if (json.at("version") != version) {
      return absl::FailedPreconditionError(
          "the job was submitted to a server of another version");
    }
    options(json);
    job.rules.positions = json.at("chunk_tokens");
    // Jobs of earlier versions have their prompts beside the rest.
    job.rows =
        JobRows::FromJson(json.contains("rows") ? json.at("rows") : json);
    for (const char* told : {"rows", "tokens", "positions", "version"}) {
      json.erase(told);
    }
    // Of a dataset: which rows and positions, without what is told elsewhere.
    Json which = job.rows.ToJson();
    for (const char* told :
         {"dataset", "content", "digest", "tokens", "positions"}) {
      which.erase(told);
    }
    if (!which.empty()) json["rows"] = which;
    job.provenance.parameters = json.dump();
  } catch (const Json::exception& error) {
    return absl::DataLossError(
        absl::StrCat("the job's specification is damaged: ", error.what()));
  }
  if (job.rules.positions == 0) {
    return absl::DataLossError(
        "the job's specification is damaged: chunks of no tokens");
  }
  ASSIGN_OR_RETURN(job.rules.positions, ChunkTokens(job.rules.positions, rule));
  job.rules.pass_tokens =
      std::max(job.rules.pass_tokens, rule.passes * job.rules.positions);
  job.rules.rows = rule.rows;
  return job;
}

void Identify(const std::string& kind, const std::string& text,
              const std::vector<Question>& about_one_token, TokenJob* job) {
  storage::Hasher identity(absl::StrCat(kind, "/1"));
  const storage::Digest rows = job->rows.Identity();
  for (const Question& question : about_one_token) {
    const Provenance& asked = question.provenance;
    identity.AddDigest(question.identity)
        .AddDigest(asked.model_digest)
        .AddInt(static_cast<int64_t>(asked.dtype));
    const ChunkPlan::Rules& rules = job->rules;
    job->weights.push_back({asked.model_digest, asked.dictionary_digest,
                            storage::Hasher("activations/1")
                                .AddDigest(question.identity)
                                .AddDigest(asked.model_digest)
                                .AddInt(static_cast<int64_t>(asked.processing))
                                .AddInt(static_cast<int64_t>(asked.dtype))
                                .AddDigest(rows)
                                .AddInt(rules.positions)
                                .AddInt(rules.pass_tokens)
                                .AddInt(rules.rows)
                                .Finish()});
    job->provenance.dictionaries.emplace_back(asked.dictionary,
                                              asked.dictionary_digest);
  }
  job->identity = identity.AddBytes(text).Finish();
  const Provenance& first = about_one_token.front().provenance;
  job->provenance.model = first.model;
  job->provenance.model_digest = first.model_digest;
  job->rows.Tell(&job->provenance);
}

}  // namespace cupola::engine
