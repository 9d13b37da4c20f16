#ifndef CUPOLA_SERVER_MODEL_MODEL_FAMILIES_H_
#define CUPOLA_SERVER_MODEL_MODEL_FAMILIES_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/model/config_fields.h"
#include "server/model/json.h"
#include "server/model/model_config.h"

namespace cupola::model {

// Fills in a model's description from its config; errors stay in the fields.
// Hugging Face's attributes are read under the names of either generation of
// transformers, and what a config leaves out is what the family assumes there.
using FamilyReader = void (*)(ConfigFields& fields, const Json& config,
                              ModelConfig* model);

// By `model_type`. A new family is one more reader here and one more list of
// names in weight_names.cc.
const std::map<std::string, FamilyReader>& ModelFamilies();

// UNIMPLEMENTED: "`what` is not served".
absl::Status NotServed(absl::string_view what);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_MODEL_FAMILIES_H_
