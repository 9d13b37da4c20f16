#ifndef CUPOLA_SERVER_ENGINE_DIRECTION_CHUNK_H_
#define CUPOLA_SERVER_ENGINE_DIRECTION_CHUNK_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/analysis/direction_statistics.h"
#include "server/engine/direction_statistics_job.h"
#include "server/engine/feature_chunks.h"
#include "server/engine/job_kind.h"

namespace cupola::engine {

// What a chunk of a direction_statistics job asks of the engine, all of it
// before anything is added to the totals.
class DirectionChunk {
 public:
  // All three outlive this.
  DirectionChunk(const DirectionSetup& setup, const TokenJob& job,
                 const JobHost& host)
      : setup_(setup), job_(job), host_(host) {}

  // `totals`: of the chunks before. The errors are the questions'.
  absl::Status Ask(const std::vector<RowPiece>& pieces,
                   const analysis::DirectionStatistics& totals,
                   const RequestContext& context);
  void AddTo(analysis::DirectionStatistics* totals) const;

 private:
  absl::Status AskRows(const std::vector<RowPiece>& pieces);
  absl::Status AskFeatures(const RequestContext& context);
  absl::Status AskEffects(const analysis::DirectionStatistics& totals,
                          const RequestContext& context);
  absl::Status AskLosses(const RequestContext& context);
  absl::Status AskAttribution(const RequestContext& context);
  absl::Status AskBoosts(const RequestContext& context);
  // Of the prompts at these places in the chunk.
  RunRequest RunOf(size_t prompts) const;

  const DirectionSetup& setup_;
  const TokenJob& job_;
  const JobHost& host_;
  Prompts prompts_;
  std::vector<int64_t> rows_;  // [prompts]: of the dataset
  Positions scored_;           // kPerPrompt, one each
  FeatureChunk features_;
  std::vector<analysis::DirectionStatistics::Effect> effects_;
  std::optional<RunAnswer> losses_, boosts_;
  std::optional<AttributeAnswer> attribution_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DIRECTION_CHUNK_H_
