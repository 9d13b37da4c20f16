#include "server/engine/begin_bridge.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/dictionary_name.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

// The output dictionary's source and its use, after `question` has begun.
absl::StatusOr<DictionarySourcePtr> OutputOf(const std::string& output,
                                             const Sources& sources,
                                             DictionaryUse* use) {
  const dictionary::Manifest& in = sources.dictionary->manifest();
  const DictionaryName named = ParseDictionaryName(sources.dictionary_name);
  if (output.empty()) {
    if (in.kind != dictionary::Kind::kPair || named.names_half) {
      return InvalidArgumentError(
          StrCat("output_dictionary is empty, and dictionary, \"",
                 sources.dictionary_name,
                 "\", is no pair; accepted: a pair's name, or two "
                 "dictionaries"));
    }
    *use = {named.entry, dictionary::Half::kOut};
    return sources.dictionary;
  }
  const Sources::Other& other = sources.others.at(output);
  if (other.model_name != sources.model_name) {
    return InvalidArgumentError(
        StrCat("output_dictionary, \"", output, "\", belongs to model \"",
               other.model_name, "\" and dictionary, \"",
               sources.dictionary_name, "\", to \"", sources.model_name,
               "\"; accepted: two dictionaries of one model"));
  }
  ASSIGN_OR_RETURN(*use, UseOf(output, other.dictionary->manifest()));
  return other.dictionary;
}

}  // namespace

absl::StatusOr<BridgeQuestion> BeginBridge(
    const std::string& output,
    const std::optional<model::Processing>& processing, const Sources& sources,
    analysis::Operation operation) {
  BridgeQuestion bridge;
  ASSIGN_OR_RETURN(bridge.question, BeginQuestion(sources, operation));
  Question& question = bridge.question;
  DictionaryUse use;
  ASSIGN_OR_RETURN(const DictionarySourcePtr out,
                   OutputOf(output, sources, &use));
  const dictionary::DictionarySource& in = *sources.dictionary;
  const bool same_entry = use.entry == question.dictionary;
  ASSIGN_OR_RETURN(bridge.place,
                   analysis::PlaceBridge({&in.manifest(), question.half},
                                         {&out->manifest(), use.half},
                                         same_entry, sources.model->config()));
  const model::Processing declared = in.manifest().processing;
  if (!processing.has_value() && out->manifest().processing != declared) {
    return InvalidArgumentError(
        StrCat("processing is unset, and the dictionaries declare two: \"",
               model::ProcessingName(declared), "\" and \"",
               model::ProcessingName(out->manifest().processing),
               "\"; accepted: RAW or FOLDED"));
  }
  question.provenance.processing = processing.value_or(declared);
  question.d_sae = in.manifest().d_sae;
  question.labels = {output.empty() ? StrCat(use.entry, ":out") : output};
  question.output_digest = out->digest();
  bridge.identity = analysis::BridgeSource::Identity(
      bridge.place, in.digest(), question.half, out->digest(), use.half);
  question.others = {std::move(use)};
  return bridge;
}

analysis::BridgeSource BridgeOf(const analysis::BridgePlace& place,
                                std::shared_ptr<analysis::BridgeCache> cache,
                                const BoundDictionaries& bound) {
  return {place, bound.dictionary, bound.others.front(), std::move(cache)};
}

}  // namespace cupola::engine
