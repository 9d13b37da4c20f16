#include "server/analysis/placed_lists.h"

#include <numeric>

namespace cupola::analysis {
namespace {

const std::vector<int64_t>& Everywhere() {
  static const auto* const everywhere = new std::vector<int64_t>{-1};
  return *everywhere;
}

}  // namespace

void AddPlaced(const PlacedIntervention& placed, size_t length,
               std::vector<std::vector<int64_t>>* lists) {
  // Positions are unique: as many as there are tokens are all of them.
  lists->push_back(placed.positions.size() == length ? Everywhere()
                                                     : placed.positions);
  if (placed.intervention->change == Change::kPatch) {
    lists->emplace_back(placed.source.begin(), placed.source.end());
    lists->push_back(placed.source_positions);
  }
  if (placed.intervention->per_position) lists->push_back(placed.value_rows);
}

std::vector<PlacedIntervention> PlacedOf(const InterventionSet& set,
                                         const Sequence& sequence,
                                         size_t* next) {
  std::vector<PlacedIntervention> placed;
  for (const Intervention& intervention : set) {
    PlacedIntervention& mine = placed.emplace_back();
    mine.intervention = &intervention;
    mine.positions = sequence.lists[(*next)++];
    if (mine.positions == Everywhere()) {
      mine.positions.resize(sequence.tokens.size());
      std::iota(mine.positions.begin(), mine.positions.end(), 0);
    }
    if (intervention.change == Change::kPatch) {
      const std::vector<int64_t>& tokens = sequence.lists[(*next)++];
      mine.source.assign(tokens.begin(), tokens.end());
      mine.source_positions = sequence.lists[(*next)++];
    }
    if (intervention.per_position) mine.value_rows = sequence.lists[(*next)++];
  }
  return placed;
}

}  // namespace cupola::analysis
