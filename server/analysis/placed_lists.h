#ifndef CUPOLA_SERVER_ANALYSIS_PLACED_LISTS_H_
#define CUPOLA_SERVER_ANALYSIS_PLACED_LISTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/intervention.h"

namespace cupola::analysis {

// Where the interventions of a set act on one sequence, as Sequence::lists hold
// it. Of each intervention, in order: its positions ({-1}: all of them); for a
// patch the tokens of its source and the source's positions; for a value with a
// row per position the rows.

// Appends one intervention. `length`: the sequence's tokens.
void AddPlaced(const PlacedIntervention& placed, size_t length,
               std::vector<std::vector<int64_t>>* lists);

// Reads a whole set back. `next`: the place in the lists; advances.
std::vector<PlacedIntervention> PlacedOf(const InterventionSet& set,
                                         const Sequence& sequence,
                                         size_t* next);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_PLACED_LISTS_H_
