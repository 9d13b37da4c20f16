// The inner work of corpus jobs without a server around it, for
// corpus_vs_scipy.py, which makes the files and runs SciPy beside it.
//
//   corpus_math assign COSTS N
//     COSTS: float64 [N, N]. Prints the seconds and the sum.
//   corpus_math similarity PREFIX_A PREFIX_B LATENTS CHUNK OUT
//     PREFIX.indptr (int64), .indices (int32), .values (float32). Adds CHUNK
//     tokens at a time, writes the products' cosines to OUT; prints the seconds
//     of the sums, and of the cosines.
//   corpus_math statistics PREFIX LATENTS CHUNK
//     Prints the seconds of one pass of feature statistics, and of
//     co-activation.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "server/analysis/assignment.h"
#include "server/analysis/coactivation.h"
#include "server/analysis/feature_similarity.h"
#include "server/analysis/feature_statistics.h"

namespace {

namespace analysis = cupola::analysis;

double SecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  const std::chrono::duration<double> spent =
      std::chrono::steady_clock::now() - start;
  return spent.count();
}

template <typename T>
std::vector<T> ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::vector<T> values(static_cast<size_t>(file.tellg()) / sizeof(T));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
  return values;
}

struct Store {
  explicit Store(const std::string& prefix, int64_t columns)
      : indptr(ReadAll<int64_t>(prefix + ".indptr")),
        indices(ReadAll<int32_t>(prefix + ".indices")),
        values(ReadAll<float>(prefix + ".values")),
        latents(columns) {}
  int64_t tokens() const { return static_cast<int64_t>(indptr.size()) - 1; }

  analysis::SparseView View(int64_t first, int64_t count) {
    begins.assign(indptr.begin() + first, indptr.begin() + first + count + 1);
    for (int64_t& begin : begins) begin -= indptr[first];
    return {count, latents, begins.data(), indices.data() + indptr[first],
            values.data() + indptr[first]};
  }

  std::vector<int64_t> indptr, begins;
  std::vector<int32_t> indices;
  std::vector<float> values;
  int64_t latents;
};

int Assign(const std::string& path, int64_t n) {
  const std::vector<double> costs = ReadAll<double>(path);
  const at::Tensor values =
      at::from_blob(const_cast<double*>(costs.data()), {n, n}, at::kDouble);
  std::vector<int64_t> columns;
  const double seconds = SecondsOf([&] {
    columns =
        *analysis::AssignOneToOne(values, analysis::Objective::kMinimize, {});
  });
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += costs[i * n + columns[i]];
  std::printf("%.6f %.12f\n", seconds, sum);
  return 0;
}

int Similarity(const std::string& a_prefix, const std::string& b_prefix,
               int64_t latents, int64_t chunk, const std::string& out) {
  Store a(a_prefix, latents), b(b_prefix, latents);
  analysis::FeatureSimilarity similarity({latents, latents, false});
  const double sums = SecondsOf([&] {
    for (int64_t t = 0; t < a.tokens(); t += chunk) {
      const int64_t count = std::min(chunk, a.tokens() - t);
      (void)similarity.Add(a.View(t, count), b.View(t, count));
    }
    similarity.Finish();
  });
  at::Tensor cosines;
  const double rest = SecondsOf([&] { cosines = similarity.Cosines(); });
  std::ofstream(out, std::ios::binary)
      .write(static_cast<const char*>(cosines.const_data_ptr()),
             static_cast<std::streamsize>(cosines.nbytes()));
  std::printf("%.6f %.6f\n", sums, rest);
  return 0;
}

int Statistics(const std::string& prefix, int64_t latents, int64_t chunk) {
  Store store(prefix, latents);
  std::vector<int64_t> row(store.tokens());
  std::vector<int32_t> position(store.tokens());
  for (int64_t t = 0; t < store.tokens(); ++t) {
    row[t] = t / 128;
    position[t] = static_cast<int32_t>(t % 128);
  }
  analysis::FeatureStatisticsOptions options;
  options.latents = latents;
  analysis::FeatureStatistics statistics(options);
  const double seconds = SecondsOf([&] {
    for (int64_t t = 0; t < store.tokens(); t += chunk) {
      statistics.Add(store.View(t, std::min(chunk, store.tokens() - t)),
                     {row.data() + t, position.data() + t});
    }
  });
  analysis::Coactivation pairs({latents, true});
  const double of_pairs = SecondsOf([&] {
    for (int64_t t = 0; t < store.tokens(); t += chunk) {
      (void)pairs.Add(store.View(t, std::min(chunk, store.tokens() - t)));
    }
    pairs.Finish();
  });
  std::printf("%.6f %.6f\n", seconds, of_pairs);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(2);
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "assign" && argc == 4) return Assign(argv[2], atoll(argv[3]));
  if (what == "similarity" && argc == 7) {
    return Similarity(argv[2], argv[3], atoll(argv[4]), atoll(argv[5]),
                      argv[6]);
  }
  if (what == "statistics" && argc == 5) {
    return Statistics(argv[2], atoll(argv[3]), atoll(argv[4]));
  }
  std::fprintf(stderr, "see the comment at the top of corpus_math.cc\n");
  return 2;
}
