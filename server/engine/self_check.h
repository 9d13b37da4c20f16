#ifndef CUPOLA_SERVER_ENGINE_SELF_CHECK_H_
#define CUPOLA_SERVER_ENGINE_SELF_CHECK_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/catalog_types.h"
#include "server/engine/requests.h"
#include "server/model/model.h"

namespace cupola::engine {

// Measures dictionaries on the sample texts with their own model: the check
// that catches a dictionary on the wrong hook point, the wrong side of a norm
// or the wrong model, which otherwise answers with plausible nonsense.
//
// The first position of every text is left out: there the residual stream of
// most models is orders of magnitude larger than anywhere else, and
// dictionaries are usually not trained on it.

// The sample texts as the model's tokens, with BOS where the dictionary (else
// the model) wants it, each cut to the model's and the dictionary's context.
absl::StatusOr<Prompts> SamplePrompts(const model::ModelSource& model,
                                      const dictionary::Manifest& manifest);

// Over all the texts' answers to the two questions. REQUIRES: not empty.
Measurement Measure(const std::vector<ReconstructAnswer>& reconstructed,
                    const std::vector<FeaturesAnswer>& features);

// How a check asks: the way of every request.
struct SelfCheckAsk {
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;
  std::function<void(ReconstructRequest, Done<ReconstructAnswer>)> reconstruct;
  std::function<void(FeaturesRequest, Done<FeaturesAnswer>)> features;
};

// Measures the dictionary `entry`, of a pair both halves, and compares with
// what is expected of it. Asks text by text, so that a check, which runs after
// every load, neither needs much memory nor holds up other requests. `done` is
// called once, on the thread of the last answer; an error is that of a
// question.
void CheckAgainstManifest(
    const std::string& entry, const model::ModelSource& model,
    const dictionary::Manifest& manifest, const SelfCheckAsk& ask,
    std::function<void(absl::StatusOr<SelfCheckResult>)> done);

// What is suspicious about a measurement, in sentences; empty if nothing is. L0
// is compared with what the catalog expects (else with a TopK's k), FVU with
// what the catalog expects, else with 1, which the mean alone reaches.
std::vector<std::string> Warnings(const dictionary::Manifest& manifest,
                                  const Measurement& measured,
                                  const std::string& which);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_SELF_CHECK_H_
