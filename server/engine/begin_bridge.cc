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

absl::StatusOr<PairQuestion> BeginPair(
    const std::string& output,
    const std::optional<model::Processing>& processing, const Sources& sources,
    analysis::Operation operation) {
  PairQuestion pair;
  ASSIGN_OR_RETURN(pair.question, BeginQuestion(sources, operation));
  Question& question = pair.question;
  DictionaryUse use;
  ASSIGN_OR_RETURN(pair.out, OutputOf(output, sources, &use));
  const dictionary::Manifest& in = sources.dictionary->manifest();
  const model::Processing declared = in.processing;
  if (!processing.has_value() && pair.out->manifest().processing != declared) {
    return InvalidArgumentError(
        StrCat("processing is unset, and the dictionaries declare two: \"",
               model::ProcessingName(declared), "\" and \"",
               model::ProcessingName(pair.out->manifest().processing),
               "\"; accepted: RAW or FOLDED"));
  }
  question.provenance.processing = processing.value_or(declared);
  question.d_sae = in.d_sae;
  question.labels = {output.empty() ? StrCat(use.entry, ":out") : output};
  question.output_digest = pair.out->digest();
  question.others = {std::move(use)};
  return pair;
}

absl::StatusOr<analysis::BridgePlace> PlacePair(const PairQuestion& pair,
                                                const Sources& sources) {
  const Question& question = pair.question;
  const DictionaryUse& use = question.others.front();
  return analysis::PlaceBridge({&sources.dictionary->manifest(), question.half},
                               {&pair.out->manifest(), use.half},
                               use.entry == question.dictionary,
                               sources.model->config());
}

BridgeQuestion BridgeAt(PairQuestion pair, const analysis::BridgePlace& place,
                        const Sources& sources) {
  const Question& question = pair.question;
  const storage::Digest identity = analysis::BridgeSource::Identity(
      place, sources.dictionary->digest(), question.half, pair.out->digest(),
      question.others.front().half);
  return {std::move(pair.question), place, identity};
}

absl::StatusOr<BridgeQuestion> BeginBridge(
    const std::string& output,
    const std::optional<model::Processing>& processing, const Sources& sources,
    analysis::Operation operation) {
  ASSIGN_OR_RETURN(PairQuestion pair,
                   BeginPair(output, processing, sources, operation));
  ASSIGN_OR_RETURN(const analysis::BridgePlace place, PlacePair(pair, sources));
  return BridgeAt(std::move(pair), place, sources);
}

analysis::BridgeSource BridgeOf(const analysis::BridgePlace& place,
                                std::shared_ptr<analysis::BridgeCache> cache,
                                const BoundDictionaries& bound) {
  return {place, bound.dictionary, bound.others.front(), std::move(cache)};
}

}  // namespace cupola::engine
