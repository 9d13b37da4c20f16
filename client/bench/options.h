#ifndef CUPOLA_CLIENT_BENCH_OPTIONS_H_
#define CUPOLA_CLIENT_BENCH_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/bench/arrivals.h"
#include "client/bench/caller.h"
#include "client/bench/mix.h"
#include "client/bench/point.h"

namespace cupola::bench {

// The command line of cupola_bench; see OptionsHelp.
struct Options {
  CallerOptions caller;
  std::string dictionary;
  MixOptions mix;
  // One of the two: a point for each.
  std::vector<int64_t> clients;
  std::vector<double> rates;
  ArrivalProcess arrivals = ArrivalProcess::kPoisson;
  int64_t max_in_flight = 10'000;
  PointOptions point;
  std::string json;  // a file, or "-"; empty: none
  bool help = false;
};

// INVALID_ARGUMENT, one line: what is wrong, and what is accepted. `seed`: used
// where the command line names none.
absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments,
                                     uint64_t seed);
std::string OptionsHelp();

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_OPTIONS_H_
