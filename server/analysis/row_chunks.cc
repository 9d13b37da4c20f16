#include "server/analysis/row_chunks.h"

#include <algorithm>

namespace cupola::analysis {

std::vector<RowChunk> ChunkRows(const std::vector<Placed>& sequences,
                                int64_t rows, std::deque<Sequence>* cut) {
  std::vector<RowChunk> chunks;
  int64_t left = 0;  // of the last chunk's rows
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& whole = *sequences[i].sequence;
    const int64_t count = static_cast<int64_t>(whole.positions.size());
    for (int64_t begin = 0; begin < count;) {
      if (left == 0) {
        chunks.emplace_back();
        left = rows;
      }
      const int64_t taken = std::min(left, count - begin);
      const Sequence* part = &whole;
      if (taken < count) {
        Sequence& some = cut->emplace_back();
        some.tokens = whole.tokens;
        some.inputs = whole.inputs;
        some.lists = whole.lists;
        some.positions.assign(whole.positions.begin() + begin,
                              whole.positions.begin() + begin + taken);
        part = &some;
      }
      chunks.back().sequences.push_back({part, sequences[i].row});
      chunks.back().of.push_back(i);
      begin += taken;
      left -= taken;
    }
  }
  return chunks;
}

}  // namespace cupola::analysis
