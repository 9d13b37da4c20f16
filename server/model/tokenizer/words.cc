#include "server/model/tokenizer/words.h"

#include <algorithm>
#include <utility>

namespace cupola::model::tokenizer {

Words::Words(NormalizedText normalized) : text_(std::move(normalized.text)) {
  if (!text_.empty()) words_.push_back({0, text_.size(), normalized.head});
}

void Words::Cutter::Cut(const Word& word, const std::vector<Match>& parts) {
  for (const Match& part : parts) {
    if (part.begin == part.end) continue;
    const size_t head =
        word.head <= part.begin
            ? 0
            : std::min(word.head - part.begin, part.end - part.begin);
    cut_.push_back({word.begin + part.begin, word.begin + part.end, head});
  }
}

void Words::RewriteEach(const Rewrite& rewrite) {
  std::string text;
  text.reserve(text_.size() + text_.size() / 4);
  std::vector<Word> words;
  words.reserve(words_.size());
  for (const Word& word : words_) {
    const size_t begin = text.size();
    const size_t head = rewrite(word, TextOf(word), &text);
    if (text.size() > begin) words.push_back({begin, text.size(), head});
  }
  text_ = std::move(text);
  words_ = std::move(words);
}

}  // namespace cupola::model::tokenizer
