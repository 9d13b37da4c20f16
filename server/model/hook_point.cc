#include "server/model/hook_point.h"

#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace cupola::model {
namespace {

// What a position of the tensor holds.
enum class Width {
  kOne,         // [1]
  kModel,       // [d_model]
  kMlp,         // [d_mlp]
  kHeads,       // [n_heads, d_head]
  kKvHeads,     // [n_kv_heads, d_head]
  kHeadsOne,    // [n_heads, 1]
  kKvHeadsOne,  // [n_kv_heads, 1]
  kHeadsModel,  // [n_heads, d_model]
  kKeys,        // [n_heads, keys]
  kVocabulary,  // [d_vocab]
};

// Which models have the point.
enum class Presence {
  kAlways,
  kLearnedPositions,
  kRotary,
  kQkNorm,
  kPostNorms,
  kSequential,
  kGated,
};

struct Entry {
  HookKind kind;
  const char* name;   // below "blocks.L." for a point of a block
  const char* alias;  // another full name, or null
  bool in_block;
  Width width;
  Presence presence;
};

using enum HookKind;
using enum Width;
using enum Presence;

// In forward order, which is HookKind's order.
constexpr Entry kEntries[] = {
    {kEmbed, "hook_embed", nullptr, false, kModel, kAlways},
    {kPosEmbed, "hook_pos_embed", nullptr, false, kModel, kLearnedPositions},
    {kResidPre, "hook_resid_pre", nullptr, true, kModel, kAlways},
    {kLn1Scale, "ln1.hook_scale", nullptr, true, kOne, kAlways},
    {kLn1Normalized, "ln1.hook_normalized", nullptr, true, kModel, kAlways},
    {kLn1Out, "ln1.hook_out", nullptr, true, kModel, kAlways},
    {kQ, "attn.hook_q", nullptr, true, kHeads, kAlways},
    {kK, "attn.hook_k", nullptr, true, kKvHeads, kAlways},
    {kV, "attn.hook_v", nullptr, true, kKvHeads, kAlways},
    {kQNormScale, "attn.q_norm.hook_scale", nullptr, true, kHeadsOne, kQkNorm},
    {kQNormNormalized, "attn.q_norm.hook_normalized", nullptr, true, kHeads,
     kQkNorm},
    {kKNormScale, "attn.k_norm.hook_scale", nullptr, true, kKvHeadsOne,
     kQkNorm},
    {kKNormNormalized, "attn.k_norm.hook_normalized", nullptr, true, kKvHeads,
     kQkNorm},
    {kRotQ, "attn.hook_rot_q", nullptr, true, kHeads, kRotary},
    {kRotK, "attn.hook_rot_k", nullptr, true, kKvHeads, kRotary},
    {kAttnScores, "attn.hook_attn_scores", nullptr, true, kKeys, kAlways},
    {kPattern, "attn.hook_pattern", nullptr, true, kKeys, kAlways},
    {kZ, "attn.hook_z", nullptr, true, kHeads, kAlways},
    {kResult, "attn.hook_result", nullptr, true, kHeadsModel, kAlways},
    {kLn1PostScale, "ln1_post.hook_scale", nullptr, true, kOne, kPostNorms},
    {kLn1PostNormalized, "ln1_post.hook_normalized", nullptr, true, kModel,
     kPostNorms},
    {kAttnOut, "hook_attn_out", nullptr, true, kModel, kAlways},
    {kResidMid, "hook_resid_mid", nullptr, true, kModel, kSequential},
    {kMlpIn, "hook_mlp_in", nullptr, true, kModel, kAlways},
    {kLn2Scale, "ln2.hook_scale", nullptr, true, kOne, kAlways},
    {kLn2Normalized, "ln2.hook_normalized", nullptr, true, kModel, kAlways},
    {kLn2Out, "mlp.hook_in", "ln2.hook_out", true, kModel, kAlways},
    {kMlpPre, "mlp.hook_pre", nullptr, true, kMlp, kAlways},
    {kMlpPreLinear, "mlp.hook_pre_linear", nullptr, true, kMlp, kGated},
    {kMlpPost, "mlp.hook_post", nullptr, true, kMlp, kAlways},
    {kLn2PostScale, "ln2_post.hook_scale", nullptr, true, kOne, kPostNorms},
    {kLn2PostNormalized, "ln2_post.hook_normalized", nullptr, true, kModel,
     kPostNorms},
    {kMlpOut, "hook_mlp_out", nullptr, true, kModel, kAlways},
    {kResidPost, "hook_resid_post", nullptr, true, kModel, kAlways},
    {kFinalScale, "ln_final.hook_scale", nullptr, false, kOne, kAlways},
    {kFinalNormalized, "ln_final.hook_normalized", nullptr, false, kModel,
     kAlways},
    {kFinalOut, "unembed.hook_in", "ln_final.hook_out", false, kModel, kAlways},
    {kLogits, "unembed.hook_out", nullptr, false, kVocabulary, kAlways},
};

constexpr bool EntriesAreInOrder() {
  for (size_t i = 0; i < std::size(kEntries); ++i) {
    if (kEntries[i].kind != static_cast<HookKind>(i)) return false;
  }
  return std::size(kEntries) == static_cast<size_t>(kLogits) + 1;
}
static_assert(EntriesAreInOrder());

const Entry& EntryOf(HookKind kind) {
  return kEntries[static_cast<size_t>(kind)];
}

bool Has(const ModelConfig& config, const Entry& entry) {
  switch (entry.presence) {
    case kAlways:
      return true;
    case kLearnedPositions:
      return config.positions == PositionKind::kLearned;
    case Presence::kRotary:
      return config.positions == PositionKind::kRotary;
    case kQkNorm:
      return config.qk_norm;
    case kPostNorms:
      return config.post_norms;
    case kSequential:
      return !config.parallel_blocks;
    case kGated:
      return config.gated_mlp;
  }
  return false;
}

const Entry* FindFullName(absl::string_view name, bool in_block) {
  for (const Entry& entry : kEntries) {
    if (entry.in_block != in_block) continue;
    if (name == entry.name || (entry.alias != nullptr && name == entry.alias)) {
      return &entry;
    }
  }
  return nullptr;
}

// The layer at the front of `text`, cut off it; nullopt without digits or
// beyond what an int holds.
std::optional<int> TakeLayer(absl::string_view* text) {
  size_t digits = 0;
  while (digits < text->size() && absl::ascii_isdigit((*text)[digits])) {
    ++digits;
  }
  int layer = 0;
  if (!absl::SimpleAtoi(text->substr(0, digits), &layer)) return std::nullopt;
  text->remove_prefix(digits);
  return layer;
}

struct Parsed {
  const Entry* entry = nullptr;
  int layer = -1;
};

// "word", "word5" or "word5ln1": the short forms of TransformerLens'
// get_act_name.
std::optional<Parsed> ParseShortForm(absl::string_view name) {
  static const auto& aliases = *new std::map<std::string, std::string>{
      {"attn", "pattern"},  {"attn_logits", "attn_scores"},
      {"key", "k"},         {"query", "q"},
      {"value", "v"},       {"mlp_pre", "pre"},
      {"mlp_post", "post"}, {"mlp_pre_linear", "pre_linear"}};
  // Words for the parts of a block.
  static const auto& parts = *new std::map<std::string, std::string>{
      {"a", "attn"}, {"attention", "attn"}, {"m", "mlp"},
      {"b", ""},     {"block", ""},         {"blocks", ""}};
  const size_t digit = name.find_first_of("0123456789");
  std::string word(name.substr(0, digit));
  if (const auto it = aliases.find(word); it != aliases.end()) {
    word = it->second;
  }
  const std::string hook = absl::StrCat("hook_", word);
  Parsed parsed;
  if (digit == absl::string_view::npos) {
    parsed.entry = FindFullName(hook, /*in_block=*/false);
    if (parsed.entry == nullptr) {
      parsed.entry =
          FindFullName(absl::StrCat("ln_final.", hook), /*in_block=*/false);
    }
    if (parsed.entry == nullptr) return std::nullopt;
    return parsed;
  }
  absl::string_view rest = name.substr(digit);
  const std::optional<int> layer = TakeLayer(&rest);
  if (!layer.has_value()) return std::nullopt;
  parsed.layer = *layer;
  std::string part(rest);
  if (const auto it = parts.find(part); it != parts.end()) part = it->second;
  if (!part.empty()) {
    parsed.entry = FindFullName(absl::StrCat(part, ".", hook), true);
  } else {
    for (const char* prefix : {"", "attn.", "mlp."}) {
      if (parsed.entry == nullptr) {
        parsed.entry = FindFullName(absl::StrCat(prefix, hook), true);
      }
    }
  }
  if (parsed.entry == nullptr) return std::nullopt;
  return parsed;
}

std::optional<Parsed> ParseName(absl::string_view name) {
  if (absl::StartsWith(name, "blocks.")) {
    absl::string_view rest = name.substr(7);
    const std::optional<int> layer = TakeLayer(&rest);
    if (!layer.has_value() || !absl::StartsWith(rest, ".")) {
      return std::nullopt;
    }
    const Entry* entry = FindFullName(rest.substr(1), /*in_block=*/true);
    if (entry == nullptr) return std::nullopt;
    return Parsed{entry, *layer};
  }
  if (const Entry* entry = FindFullName(name, /*in_block=*/false)) {
    return Parsed{entry, -1};
  }
  return ParseShortForm(name);
}

// The valid names, with the layer left open.
std::string Available(const ModelConfig& config) {
  std::vector<std::string> names;
  for (const Entry& entry : kEntries) {
    if (!Has(config, entry)) continue;
    names.push_back(
        absl::StrCat(entry.in_block ? "blocks.L." : "", entry.name));
  }
  return absl::StrCat(absl::StrJoin(names, ", "), " (L from 0 to ",
                      config.n_layers - 1, ")");
}

}  // namespace

absl::StatusOr<HookPoint> ParseHookPoint(absl::string_view name,
                                         const ModelConfig& config) {
  const std::optional<Parsed> parsed = ParseName(name);
  if (!parsed.has_value() || !Has(config, *parsed->entry)) {
    return absl::NotFoundError(
        absl::StrCat("hook point '", name,
                     "' is not one of this model's: ", Available(config)));
  }
  if (parsed->entry->in_block && parsed->layer >= config.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("hook point '", name, "': layer ", parsed->layer,
                     " is outside the model's 0 to ", config.n_layers - 1));
  }
  return HookPoint{parsed->entry->kind, parsed->layer};
}

std::string HookName(const HookPoint& hook) {
  const Entry& entry = EntryOf(hook.kind);
  if (!entry.in_block) return entry.name;
  return absl::StrCat("blocks.", hook.layer, ".", entry.name);
}

std::vector<int64_t> HookShape(const HookPoint& hook,
                               const ModelConfig& config) {
  switch (EntryOf(hook.kind).width) {
    case kOne:
      return {1};
    case kModel:
      return {config.d_model};
    case kMlp:
      return {config.d_mlp};
    case kHeads:
      return {config.n_heads, config.d_head};
    case kKvHeads:
      return {config.n_kv_heads, config.d_head};
    case kHeadsOne:
      return {config.n_heads, 1};
    case kKvHeadsOne:
      return {config.n_kv_heads, 1};
    case kHeadsModel:
      return {config.n_heads, config.d_model};
    case kKeys:
      return {config.n_heads, -1};
    case kVocabulary:
      return {config.d_vocab};
  }
  return {};
}

std::vector<HookPoint> AllHookPoints(const ModelConfig& config) {
  std::vector<HookPoint> points;
  for (const Entry& entry : kEntries) {
    if (entry.kind == kResidPre) {
      for (int layer = 0; layer < config.n_layers; ++layer) {
        for (const Entry& inner : kEntries) {
          if (inner.in_block && Has(config, inner)) {
            points.push_back({inner.kind, layer});
          }
        }
      }
    }
    if (!entry.in_block && Has(config, entry)) points.push_back({entry.kind});
  }
  return points;
}

int64_t ForwardOrder(const HookPoint& hook) {
  constexpr int64_t kStride = std::size(kEntries);
  const Entry& entry = EntryOf(hook.kind);
  const int64_t kind = static_cast<int64_t>(hook.kind);
  if (entry.in_block) return (int64_t{hook.layer} + 1) * kStride + kind;
  // Before the first block, or behind every block there can be.
  constexpr int64_t kLast = int64_t{1} << 40;
  return hook.kind <= kPosEmbed ? kind : kLast + kind;
}

}  // namespace cupola::model
