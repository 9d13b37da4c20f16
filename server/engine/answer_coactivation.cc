#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/coactivation_job.h"
#include "server/engine/to_array.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::Coactivations;
using analysis::PairMeasure;
using analysis::PairNumbers;
using storage::DType;

// Entries of the matrix after which an answer ends with the row it is at.
constexpr size_t kPageEntries = size_t{1} << 20;

absl::Status CheckLatents(absl::string_view field,
                          const std::vector<int64_t>& latents, int64_t below) {
  if (static_cast<int64_t>(latents.size()) > below) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", latents.size(),
                     " latents; accepted: as many as there are, ", below));
  }
  for (int64_t latent : latents) {
    if (latent >= 0 && latent < below) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", latent, "; accepted: 0 to ", below - 1));
  }
  return absl::OkStatus();
}

absl::Status CheckQuery(const Coactivations& totals,
                        const CoactivationQuery& query, const Limits& limits) {
  const int64_t latents = totals.options().latents;
  RETURN_IF_ERROR(totals.CheckMeasure(query.measure));
  RETURN_IF_ERROR(CheckLatents("a", query.a, latents));
  RETURN_IF_ERROR(CheckLatents("b", query.b, latents));
  RETURN_IF_ERROR(CheckLatents("latents", query.latents, latents));
  if (query.top < 0 || query.top >= std::max<int64_t>(latents, 2)) {
    return absl::InvalidArgumentError(
        absl::StrCat("top is ", query.top, "; accepted: 0 to ", latents - 1));
  }
  RETURN_IF_ERROR(CheckAnswerBytes(
      16.0 * query.a.size() * static_cast<double>(query.b.size()) +
          20.0 * query.latents.size() * static_cast<double>(query.top),
      limits));
  if (!query.matrix) return absl::OkStatus();
  if (totals.options().sample > 0) {
    return absl::InvalidArgumentError(
        "matrix: the job sampled tokens and has no matrix of pairs; accepted: "
        "partners of latents");
  }
  RETURN_IF_ERROR(CheckLatents("first", {query.first}, latents));
  if (query.min_count < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "min_count is ", query.min_count, "; accepted: at least 1"));
  }
  return absl::OkStatus();
}

absl::Status PutBlock(const Coactivations& totals,
                      const CoactivationQuery& query,
                      const std::function<absl::Status()>& poll,
                      CoactivationAnswer* answer) {
  std::vector<double> values;
  std::vector<int64_t> both;
  for (int64_t a : query.a) {
    RETURN_IF_ERROR(poll());
    for (int64_t b : query.b) {
      const PairNumbers numbers = totals.Of(a, b);
      values.push_back(MeasureOf(query.measure, numbers));
      both.push_back(numbers.both);
    }
  }
  const std::vector<int64_t> shape = {static_cast<int64_t>(query.a.size()),
                                      static_cast<int64_t>(query.b.size())};
  answer->values = ToArray(DType::kFloat64, shape, values);
  answer->both = ToArray(DType::kInt64, shape, both);
  return absl::OkStatus();
}

absl::Status PutPartners(const Coactivations& totals,
                         const CoactivationQuery& query,
                         const std::function<absl::Status()>& poll,
                         CoactivationAnswer* answer) {
  const int64_t n = query.top > 0 ? query.latents.size() : 0;
  std::vector<int32_t> partner(n * query.top, -1);
  std::vector<double> value(n * query.top);
  std::vector<int64_t> both(n * query.top);
  if (n > 0) {
    ASSIGN_OR_RETURN(const auto top,
                     totals.Top(query.measure, query.latents, query.top, poll));
    for (int64_t i = 0; i < n; ++i) {
      RETURN_IF_ERROR(poll());
      int64_t at = i * query.top;
      for (const analysis::Partner& one : top[i]) {
        partner[at] = static_cast<int32_t>(one.latent);
        value[at] = one.value;
        both[at++] = totals.Of(query.latents[i], one.latent).both;
      }
    }
  }
  answer->partner = ToArray(DType::kInt32, {n, query.top}, partner);
  answer->partner_value = ToArray(DType::kFloat64, {n, query.top}, value);
  answer->partner_both = ToArray(DType::kInt64, {n, query.top}, both);
  return absl::OkStatus();
}

absl::Status PutMatrix(const Coactivations& totals,
                       const CoactivationQuery& query,
                       const std::function<absl::Status()>& poll,
                       CoactivationAnswer* answer) {
  const int64_t latents = totals.options().latents;
  const bool one_sided = query.measure == PairMeasure::kUpstreamCorrelation;
  std::vector<int32_t> row, column;
  std::vector<double> entry, mirrored;
  int64_t a = query.matrix ? query.first : latents;
  for (; a < latents && row.size() < kPageEntries; ++a) {
    RETURN_IF_ERROR(poll());
    for (int64_t b = a; b < latents; ++b) {
      const PairNumbers numbers = totals.Of(a, b);
      if (numbers.both < query.min_count) continue;
      row.push_back(static_cast<int32_t>(a));
      column.push_back(static_cast<int32_t>(b));
      entry.push_back(MeasureOf(query.measure, numbers));
      if (!one_sided) continue;
      mirrored.push_back(MeasureOf(query.measure, totals.Of(b, a)));
    }
  }
  answer->next = a < latents ? a : -1;
  answer->row = ToVector(DType::kInt32, row);
  answer->column = ToVector(DType::kInt32, column);
  answer->entry = ToVector(DType::kFloat64, entry);
  answer->mirrored = ToVector(DType::kFloat64, mirrored);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CoactivationAnswer> AnswerCoactivation(
    const JobWork& work, const CoactivationQuery& query, const Limits& limits,
    const std::function<absl::Status()>& poll) {
  const Coactivations& totals = CoactivationsOf(work);
  RETURN_IF_ERROR(CheckQuery(totals, query, limits));
  CoactivationAnswer answer;
  answer.tokens = totals.tokens();
  answer.options = totals.options();
  RETURN_IF_ERROR(PutBlock(totals, query, poll, &answer));
  RETURN_IF_ERROR(PutPartners(totals, query, poll, &answer));
  RETURN_IF_ERROR(PutMatrix(totals, query, poll, &answer));
  return answer;
}

}  // namespace cupola::engine
