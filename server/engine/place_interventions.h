#ifndef CUPOLA_SERVER_ENGINE_PLACE_INTERVENTIONS_H_
#define CUPOLA_SERVER_ENGINE_PLACE_INTERVENTIONS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/intervention.h"
#include "server/engine/field_status.h"
#include "server/engine/question.h"
#include "server/engine/run_requests.h"

namespace cupola::engine {

// The dictionaries of one question, each once, in the order in which they were
// first named: what analyses know by index.
class NamedDictionaries {
 public:
  explicit NamedDictionaries(const Sources& sources) : sources_(sources) {}

  // INVALID_ARGUMENT naming `field`: a dictionary of another model. NOT_FOUND:
  // a half of what is no pair.
  absl::StatusOr<int> Index(const std::string& name, const std::string& field);

  const dictionary::Manifest& manifest(int index) const;
  dictionary::Half half(int index) const { return uses_[index].half; }
  const std::vector<DictionaryUse>& uses() const { return uses_; }
  // Of files and halves; and of files alone.
  std::vector<storage::Digest> Digests() const;
  std::vector<storage::Digest> FileDigests() const;

 private:
  const Sources& sources_;
  std::vector<std::string> names_;
  std::vector<DictionaryUse> uses_;
};

// An intervention without its place, checked. `field`: its name in errors. A
// stored mean is looked up for the model in `processing` and taken in as a
// value, so that the question's identity holds its numbers, not its name.
absl::StatusOr<analysis::Intervention> MakeIntervention(
    const InterventionRequest& request, const std::string& field,
    model::Processing processing, const Sources& sources,
    NamedDictionaries* dictionaries);

// Where it acts on each of the prompts.
absl::StatusOr<std::vector<analysis::PlacedIntervention>> PlaceIntervention(
    const InterventionRequest& request, const std::string& field,
    const analysis::Intervention& intervention,
    const std::vector<std::vector<int32_t>>& token_ids, const Sources& sources,
    const Limits& limits);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_PLACE_INTERVENTIONS_H_
