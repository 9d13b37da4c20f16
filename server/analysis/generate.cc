#include "server/analysis/generate.h"

#include <utility>

#include "server/analysis/generation.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

GenerateAnalysis::GenerateAnalysis(GenerateOptions options,
                                   Dictionaries dictionaries)
    : options_(std::move(options)), dictionaries_(std::move(dictionaries)) {}

storage::Digest GenerateAnalysis::Identity(
    const GenerateOptions& options,
    const std::vector<storage::Digest>& dictionaries) {
  storage::Hasher hasher("generate/1");
  hasher.AddInt(dictionaries.size());
  for (const storage::Digest& digest : dictionaries) hasher.AddDigest(digest);
  hasher.AddInt(options.interventions.size());
  for (size_t i = 0; i < options.interventions.size(); ++i) {
    AddToIdentity(options.interventions[i], &hasher);
    const GeneratedScope& scope = options.generated[i];
    hasher.AddInt(scope.everywhere)
        .AddInts(scope.positions.data(), scope.positions.size());
  }
  hasher.AddDouble(options.sampling.temperature)
      .AddInt(options.sampling.top_k)
      .AddDouble(options.sampling.top_p)
      .AddInt(static_cast<int64_t>(options.seed))
      .AddInt(options.samples)
      .AddInt(options.max_new_tokens)
      .AddInts(options.stop.data(), options.stop.size())
      .AddInt(options.top);
  return hasher.Finish();
}

absl::StatusOr<std::unique_ptr<Stepwise>> GenerateAnalysis::Start(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  ASSIGN_OR_RETURN(
      std::unique_ptr<Stepwise> generation,
      Generation::Create(options_, dictionaries_, pass, sequences));
  return generation;
}

absl::StatusOr<std::vector<std::vector<storage::Array>>> GenerateAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  ASSIGN_OR_RETURN(const std::unique_ptr<Stepwise> generation,
                   Start(pass, sequences));
  for (bool done = false; !done;) {
    ASSIGN_OR_RETURN(done, generation->Step());
  }
  return generation->TakeRecords();
}

}  // namespace cupola::analysis
