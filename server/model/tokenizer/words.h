#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_WORDS_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_WORDS_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/model/tokenizer/normalizer.h"
#include "server/model/tokenizer/regex.h"

namespace cupola::model::tokenizer {

// A text cut into words, each of which will be tokenized by itself. Owned by
// one Encode call.
class Words {
 public:
  struct Word {
    size_t begin;  // of text(); never empty
    size_t end;
    size_t head;  // NormalizedText::head of this word
  };

  // All of `normalized` as one word; no word where it is empty.
  explicit Words(NormalizedText normalized);

  const std::string& text() const { return text_; }
  const std::vector<Word>& words() const { return words_; }
  absl::string_view TextOf(const Word& word) const {
    return absl::string_view(text_).substr(word.begin, word.end - word.begin);
  }

  // Cuts the words that were there when a pass began into parts, which are
  // relative to their word. Words that get no parts are gone.
  class Cutter {
   public:
    explicit Cutter(Words* words) : words_(words) {}
    ~Cutter() { words_->words_ = std::move(cut_); }
    void Cut(const Word& word, const std::vector<Match>& parts);

   private:
    Words* const words_;
    std::vector<Word> cut_;
  };

  // Gives every word another text. `rewrite` appends the new text of `word`,
  // whose old text is `old`, to `*text` and returns the new head.
  using Rewrite = std::function<size_t(const Word& word, absl::string_view old,
                                       std::string* text)>;
  void RewriteEach(const Rewrite& rewrite);

 private:
  std::string text_;
  std::vector<Word> words_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_WORDS_H_
