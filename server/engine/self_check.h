#ifndef CUPOLA_SERVER_ENGINE_SELF_CHECK_H_
#define CUPOLA_SERVER_ENGINE_SELF_CHECK_H_

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

Measurement Measure(const ReconstructAnswer& reconstructed,
                    const FeaturesAnswer& features);

// What is suspicious about a measurement, in sentences; empty if nothing is. L0
// is compared with what the catalog expects (else with a TopK's k), FVU with
// what the catalog expects, else with 1, which the mean alone reaches.
std::vector<std::string> Warnings(const dictionary::Manifest& manifest,
                                  const Measurement& measured,
                                  const std::string& which);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_SELF_CHECK_H_
