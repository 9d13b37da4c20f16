// Tokenizer::Load: the files of a folder, into the stages of BpeTokenizer.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/bpe_tokenizer.h"
#include "server/model/tokenizer/special_tokens.h"
#include "server/model/tokenizer/tokenizer.h"
#include "server/model/tokenizer/utf8.h"
#include "storage/digest.h"

namespace cupola::model {
namespace {

using tokenizer::AddedTokens;
using tokenizer::Bpe;
using tokenizer::BpeTokenizer;
using tokenizer::Decoder;
using tokenizer::Normalizer;
using tokenizer::PreTokenizer;
using tokenizer::SpecialTokens;

// What GPT-2's own files say without words.
constexpr char kGpt2Special[] = "<|endoftext|>";

// The same status, its message led by the file that it is about.
absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", status.message()));
}

// A tokenizer.json made from GPT-2's vocab.json and merges.txt.
absl::StatusOr<Json> ReadGpt2Files(const std::string& folder,
                                   SpecialTokens* special) {
  ASSIGN_OR_RETURN(Json vocabulary,
                   ReadJsonFile(absl::StrCat(folder, "/vocab.json")));
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile(absl::StrCat(folder, "/merges.txt")));
  if (tokenizer::FindInvalidUtf8(text) != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, "/merges.txt: not valid UTF-8"));
  }
  Json merges = Json::array();
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    absl::ConsumeSuffix(&line, "\r");
    if (!line.empty()) merges.push_back(std::string(line));
  }
  if (!vocabulary.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, "/vocab.json: not an object"));
  }
  Json added = Json::array();
  for (std::optional<std::string>* const token :
       {&special->bos, &special->eos, &special->unk}) {
    if (!token->has_value()) *token = kGpt2Special;
    if (!vocabulary.contains(**token)) {
      token->reset();
      continue;
    }
    added.push_back(
        {{"content", **token}, {"special", true}, {"normalized", false}});
  }
  return Json{
      {"added_tokens", std::move(added)},
      {"pre_tokenizer",
       {{"type", "ByteLevel"},
        {"add_prefix_space", special->add_prefix_space}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", std::move(vocabulary)},
        {"merges", std::move(merges)}}},
  };
}

struct BosIds {
  std::optional<int32_t> bos;
  std::optional<int32_t> declared;
};

absl::StatusOr<BosIds> FindBos(const SpecialTokens& special,
                               const Json& post_processor, const Bpe& bpe,
                               const AddedTokens& added) {
  const auto find = [&](const std::string& token) {
    const std::optional<int32_t> id = added.Find(token);
    return id.has_value() ? id : bpe.Find(token);
  };
  BosIds ids;
  if (special.bos.has_value()) {
    ids.declared = find(*special.bos);
    if (!ids.declared.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the bos_token \"", *special.bos, "\" is not in the vocabulary"));
    }
  } else {
    ASSIGN_OR_RETURN(const std::optional<int64_t> first,
                     tokenizer::FindFirstSpecialId(post_processor));
    if (first.has_value()) {
      const bool known =
          *first >= 0 && *first < Bpe::kMaxIds &&
          (added.tokens().contains(static_cast<int32_t>(*first)) ||
           (static_cast<size_t>(*first) < bpe.tokens().size() &&
            bpe.tokens()[*first].has_value()));
      if (!known) {
        return absl::InvalidArgumentError(
            absl::StrCat("the post_processor starts texts with the id ", *first,
                         ", which no token has"));
      }
      ids.declared = static_cast<int32_t>(*first);
    }
  }
  ids.bos = ids.declared;
  // An eos_token that is not in the vocabulary cannot stand in.
  if (!ids.bos.has_value() && special.eos.has_value()) {
    ids.bos = find(*special.eos);
  }
  return ids;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Build(
    const Json& json, const SpecialTokens& special, std::string fingerprint) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError("not a JSON object");
  }
  const auto part = [&json](const char* key) {
    return json.value(key, Json());
  };
  const auto model = json.find("model");
  if (model == json.end() || !model->is_object()) {
    return absl::InvalidArgumentError("\"model\" must be an object");
  }
  ASSIGN_OR_RETURN(auto normalizer, Normalizer::FromJson(part("normalizer")));
  ASSIGN_OR_RETURN(auto pre_tokenizer,
                   PreTokenizer::FromJson(part("pre_tokenizer")));
  ASSIGN_OR_RETURN(Bpe bpe, Bpe::FromJson(*model, pre_tokenizer.byte_level));
  ASSIGN_OR_RETURN(
      AddedTokens added,
      AddedTokens::FromJson(part("added_tokens"), bpe, normalizer.get()));
  ASSIGN_OR_RETURN(Decoder decoder, Decoder::FromJson(part("decoder")));
  ASSIGN_OR_RETURN(const BosIds bos,
                   FindBos(special, part("post_processor"), bpe, added));
  const storage::Digest digest = storage::Hasher("tokenizer/1")
                                     .AddBytes(fingerprint)
                                     .AddInt(bos.bos.value_or(-1))
                                     .AddInt(bos.declared.value_or(-1))
                                     .Finish();
  fingerprint.assign(digest.begin(), digest.end());
  return std::make_unique<BpeTokenizer>(
      BpeTokenizer::Parts{std::move(normalizer), std::move(pre_tokenizer),
                          std::move(bpe), std::move(added), std::move(decoder),
                          bos.bos, bos.declared, std::move(fingerprint)});
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(
    const std::string& folder) {
  ASSIGN_OR_RETURN(SpecialTokens special, tokenizer::ReadSpecialTokens(folder));
  std::string path = absl::StrCat(folder, "/tokenizer.json");
  absl::StatusOr<std::string> text = ReadFile(path);
  absl::StatusOr<Json> json;
  if (text.ok()) {
    json = ParseJson(*text, path);
    if (!json.ok()) return json.status();
  } else if (absl::IsNotFound(text.status())) {
    path = folder;
    json = ReadGpt2Files(folder, &special);
    if (absl::IsNotFound(json.status())) {
      return absl::NotFoundError(
          absl::StrCat(folder,
                       ": neither tokenizer.json nor vocab.json and "
                       "merges.txt"));
    }
    if (!json.ok()) return json.status();
    text = json->dump();
  } else {
    return text.status();
  }
  auto built = Build(*json, special, *std::move(text));
  if (!built.ok()) return InFile(path, built.status());
  return built;
}

}  // namespace cupola::model
