// Bpe::FromJson: how a model is read. bpe.cc is how it encodes.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/bpe.h"
#include "server/model/tokenizer/byte_level.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

constexpr size_t kByteTokenLength = 6;  // <0x0A>

// A merge rule as the file has it: "a b", or ["a", "b"].
absl::StatusOr<std::pair<absl::string_view, absl::string_view>> ReadRule(
    const Json& rule, size_t index, bool as_pairs) {
  const auto bad = [index](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"merges\"[", index, "] ", what));
  };
  if (as_pairs) {
    if (!rule.is_array() || rule.size() != 2 || !rule[0].is_string() ||
        !rule[1].is_string()) {
      return bad("is not a pair of strings");
    }
    return std::make_pair(
        absl::string_view(rule[0].get_ref<const std::string&>()),
        absl::string_view(rule[1].get_ref<const std::string&>()));
  }
  if (!rule.is_string()) return bad("is not a string");
  const absl::string_view text = rule.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == absl::string_view::npos ||
      text.find(' ', space + 1) != absl::string_view::npos) {
    return bad("is not two tokens with one space between them");
  }
  return std::make_pair(text.substr(0, space), text.substr(space + 1));
}

}  // namespace

absl::StatusOr<Bpe> Bpe::FromJson(const Json& model, bool byte_level) {
  Bpe bpe;
  bpe.byte_level_ = byte_level;
  RETURN_IF_ERROR(bpe.ReadOptions(model));
  ASSIGN_OR_RETURN(const Vocabulary vocabulary, bpe.ReadVocabulary(model));
  bpe.IndexVocabulary(vocabulary);
  RETURN_IF_ERROR(bpe.ReadMerges(model, vocabulary));
  bpe.MarkWholeWords();
  return bpe;
}

absl::Status Bpe::ReadOptions(const Json& model) {
  ASSIGN_OR_RETURN(const std::string type, StringOr(model, "type", "BPE"));
  if (type != "BPE") {
    return absl::InvalidArgumentError(
        absl::StrCat("model \"", type, "\" is not supported, only BPE is"));
  }
  ASSIGN_OR_RETURN(const double dropout, DoubleOr(model, "dropout", 0.0));
  if (dropout != 0.0) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"dropout\" is ", dropout,
                     ", but only 0 gives the same ids every time"));
  }
  for (const char* const key :
       {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const std::string affix, StringOr(model, key, ""));
    if (!affix.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", key, "\" is not supported"));
    }
  }
  ASSIGN_OR_RETURN(byte_fallback_, BoolOr(model, "byte_fallback", false));
  ASSIGN_OR_RETURN(fuse_unknown_, BoolOr(model, "fuse_unk", false));
  ASSIGN_OR_RETURN(ignore_merges_, BoolOr(model, "ignore_merges", false));
  const auto unknown = model.find("unk_token");
  if (unknown != model.end() && !unknown->is_null()) {
    ASSIGN_OR_RETURN(unknown_token_, RequiredString(model, "unk_token"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Bpe::Vocabulary> Bpe::ReadVocabulary(const Json& model) {
  const auto json = model.find("vocab");
  if (json == model.end() || !json->is_object()) {
    return absl::InvalidArgumentError(
        "\"vocab\" must be an object of tokens and their ids");
  }
  Vocabulary vocabulary;
  vocabulary.reserve(json->size());
  for (auto it = json->begin(); it != json->end(); ++it) {
    const std::string& token = it.key();
    if (!it->is_number_unsigned() || it->get<uint64_t>() >= kMaxIds) {
      return absl::InvalidArgumentError(
          absl::StrCat("the id of the token \"", token, "\" is ", it->dump(),
                       ", expected an integer from 0 to ", kMaxIds - 1));
    }
    const auto id = it->get<int32_t>();
    if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(id + 1);
    if (tokens_[id].has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the tokens \"", *tokens_[id], "\" and \"", token,
                       "\" have the same id ", id));
    }
    tokens_[id] = token;
    vocabulary.emplace(token, id);
  }
  size_ = static_cast<int32_t>(vocabulary.size());
  return vocabulary;
}

void Bpe::IndexVocabulary(const Vocabulary& vocabulary) {
  words_.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary) {
    std::optional<std::string> word =
        byte_level_ ? FromByteAlphabet(token) : std::string(token);
    if (word.has_value()) {
      longest_word_ = std::max(longest_word_, word->size());
      if (word->size() == 1) {
        byte_ids_[static_cast<unsigned char>((*word)[0])] = id;
      }
      words_.emplace(*std::move(word), Entry{id, false});
    } else {
      unreachable_.emplace(token, id);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto it = vocabulary.find(absl::StrFormat("<0x%02X>", byte));
    if (it != vocabulary.end()) fallback_ids_[byte] = it->second;
  }
  if (unknown_token_.has_value()) {
    const auto it = vocabulary.find(*unknown_token_);
    if (it != vocabulary.end()) unknown_id_ = it->second;
  }
}

absl::Status Bpe::ReadMerges(const Json& model, const Vocabulary& vocabulary) {
  const auto json = model.find("merges");
  if (json == model.end() || !json->is_array()) {
    return absl::InvalidArgumentError("\"merges\" must be a list");
  }
  const bool as_pairs = !json->empty() && json->front().is_array();
  for (size_t rank = 0; rank < json->size(); ++rank) {
    const Json& rule = (*json)[rank];
    if (rule.is_string() &&
        absl::StartsWith(rule.get_ref<const std::string&>(), "#version")) {
      continue;
    }
    ASSIGN_OR_RETURN(const auto parts, ReadRule(rule, rank, as_pairs));
    const std::string merged = absl::StrCat(parts.first, parts.second);
    std::array<int32_t, 3> ids;
    size_t known = 0;
    for (const absl::string_view token :
         {parts.first, parts.second, absl::string_view(merged)}) {
      const auto it = vocabulary.find(token);
      if (it == vocabulary.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"merges\"[", rank, "] needs the token \"", token,
                         "\", which is not in the vocabulary"));
      }
      ids[known++] = it->second;
    }
    merges_.Add(ids[0], ids[1], static_cast<uint32_t>(rank), ids[2]);
    AddJoints(parts.first, parts.second, vocabulary);
  }
  return absl::OkStatus();
}

void Bpe::AddJoints(absl::string_view left, absl::string_view right,
                    const Vocabulary& vocabulary) {
  // A symbol is a character, a byte's token or the unknown token; a token that
  // was merged starts and ends with the strings of its symbols.
  const auto collect = [&](bool at_end, absl::string_view token) {
    std::vector<int32_t> symbols;
    const auto add = [&](size_t length) {
      if (length > token.size()) return;
      const auto it = vocabulary.find(
          token.substr(at_end ? token.size() - length : 0, length));
      if (it != vocabulary.end()) symbols.push_back(it->second);
    };
    if (token.empty()) return symbols;
    add(at_end ? token.size() - CharacterStart(token, token.size())
               : CharacterLength(static_cast<unsigned char>(token[0])));
    if (byte_fallback_) add(kByteTokenLength);
    if (unknown_id_.has_value()) add(unknown_token_->size());
    return symbols;
  };
  const std::vector<int32_t> firsts = collect(/*at_end=*/false, right);
  for (const int32_t last : collect(/*at_end=*/true, left)) {
    for (const int32_t first : firsts) merges_.AddJoint(last, first);
  }
}

void Bpe::MarkWholeWords() {
  std::vector<int32_t> ids;
  for (auto& [word, entry] : words_) {
    ids.clear();
    // A word that needs a missing unknown token is not whole; Encode says so.
    if (!Merge(word, &ids).ok()) continue;
    entry.whole = ids.size() == 1 && ids[0] == entry.id;
  }
}

}  // namespace cupola::model::tokenizer
