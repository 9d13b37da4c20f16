#ifndef CUPOLA_SERVER_ANALYSIS_ROW_CHUNKS_H_
#define CUPOLA_SERVER_ANALYSIS_ROW_CHUNKS_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "server/analysis/analysis.h"

namespace cupola::analysis {

// Some rows of a batch, so that what is computed of them at a time is bounded.
struct RowChunk {
  std::vector<Placed> sequences;  // with these rows only
  std::vector<size_t> of;         // which of the batch's each one is
};

// A batch's rows in order, at most `rows` (>= 1) at a time; long sequences are
// cut between their positions, and those without rows are left out. `cut` owns
// what is cut and outlives the chunks.
std::vector<RowChunk> ChunkRows(const std::vector<Placed>& sequences,
                                int64_t rows, std::deque<Sequence>* cut);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ROW_CHUNKS_H_
