#include "server/model/tokenizer/literal_matcher.h"

namespace cupola::model::tokenizer {

void LiteralMatcher::Add(absl::string_view literal, int32_t value) {
  if (literal.empty()) return;
  uint32_t node = 0;
  for (const char c : literal) {
    const auto byte = static_cast<unsigned char>(c);
    const auto [it, added] = edges_.try_emplace(Edge(node, byte), node_count_);
    if (added) ++node_count_;
    node = it->second;
  }
  starts_[static_cast<unsigned char>(literal[0])] = true;
  values_.try_emplace(node, value);
}

std::optional<LiteralMatcher::Found> LiteralMatcher::Find(
    absl::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    std::optional<Found> longest;
    uint32_t node = 0;
    for (size_t at = begin; at < text.size(); ++at) {
      const auto edge =
          edges_.find(Edge(node, static_cast<unsigned char>(text[at])));
      if (edge == edges_.end()) break;
      node = edge->second;
      const auto value = values_.find(node);
      if (value != values_.end()) {
        longest = Found{begin, at + 1, value->second};
      }
    }
    if (longest.has_value()) return longest;
  }
  return std::nullopt;
}

}  // namespace cupola::model::tokenizer
