#ifndef CUPOLA_SERVER_MODEL_EOS_TOKENS_H_
#define CUPOLA_SERVER_MODEL_EOS_TOKENS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/model/json.h"
#include "server/model/model_config.h"

namespace cupola::model {

// The tokens that end a text: `eos_token_id` (one, or a list) of the folder's
// generation_config.json, where it has one, else of config.json (of its
// text_config, or of the top level). Ids outside the vocabulary are left out:
// no text can end with them. Ascending; may be empty. A
// generation_config.json that cannot be read is as good as none.
std::vector<int32_t> ReadEosTokens(const std::string& folder,
                                   const Json& config_json,
                                   const ModelConfig& config);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_EOS_TOKENS_H_
