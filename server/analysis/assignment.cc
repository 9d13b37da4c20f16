#include "server/analysis/assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/analysis/reduced_costs.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::analysis {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kPolledRows = 64;
// Augmenting row reduction costs a pass over a row a step, and settles most
// rows within a few; what it has not settled then, the paths do. (Reducing by
// columns first, as published, makes the paths longer where costs are nearly
// the same in all rows, as cosines with a frequent feature are.)
constexpr int64_t kReductions = 2, kStepsPerRow = 4;

// Rows are no more than columns. Invariants between steps, up to rounding: the
// reduced cost of an assigned pair is the smallest of its row; duals are 0 of
// columns that are not assigned, and nowhere above 0. In the end they prove
// that no assignment is better.
template <typename T>
class Solver {
 public:
  Solver(const T* values, int64_t rows, int64_t columns, double sign,
         const std::function<absl::Status()>& poll)
      : values_(values),
        rows_(rows),
        columns_(columns),
        sign_(sign),
        poll_(poll),
        duals_(columns),
        open_duals_(columns),
        distances_(columns),
        final_(columns),
        smallest_((columns + kCostBlock - 1) / kCostBlock),
        sources_(columns),
        column_of_(rows, -1),
        row_of_(columns, -1) {}

  absl::Status Solve() {
    std::vector<int64_t> free(rows_);
    std::iota(free.begin(), free.end(), 0);
    for (int64_t i = 0; i < kReductions && !free.empty(); ++i) {
      RETURN_IF_ERROR(ReduceRows(&free));
    }
    for (const int64_t row : free) {
      RETURN_IF_ERROR(Poll());
      Augment(row);
    }
    return absl::OkStatus();
  }

  std::vector<int64_t> column_of() && { return std::move(column_of_); }

 private:
  const T* Row(int64_t row) const { return values_ + row * columns_; }

  absl::Status Poll() {
    return ++steps_ % kPolledRows == 0 && poll_ ? poll_() : absl::OkStatus();
  }

  // Gives each free row its best column at the price that makes the second best
  // as good; who had it is free again, and comes next where that was a gain.
  absl::Status ReduceRows(std::vector<int64_t>* free) {
    std::vector<int64_t> todo(free->rbegin(), free->rend());
    free->clear();
    int64_t steps = kStepsPerRow * static_cast<int64_t>(todo.size());
    while (!todo.empty()) {
      RETURN_IF_ERROR(Poll());
      const int64_t row = todo.back();
      todo.pop_back();
      const TwoSmallest two = SmallestOfRow(row);
      int64_t column = two.column;
      const double before = duals_[column];
      const double after = before - (two.second_value - two.value);
      const bool gain = after < before;
      if (gain && std::isfinite(after)) {
        duals_[column] = after;
      } else if (row_of_[column] >= 0 && two.second_column >= 0) {
        column = two.second_column;
      }
      const int64_t displaced = row_of_[column];
      Assign(row, column);
      if (displaced < 0) continue;
      column_of_[displaced] = -1;
      (gain && --steps > 0 ? todo : *free).push_back(displaced);
    }
    return absl::OkStatus();
  }

  struct TwoSmallest {
    int64_t column = -1, second_column = -1;
    double value = kInfinity, second_value = kInfinity;
  };
  // Of the row's reduced costs.
  TwoSmallest SmallestOfRow(int64_t row) {
    ReduceCosts(Row(row), sign_, duals_.data(), columns_, distances_.data(),
                smallest_.data());
    TwoSmallest two;
    for (size_t block = 0; block < smallest_.size(); ++block) {
      if (!(smallest_[block] < two.second_value)) continue;
      const int64_t begin = static_cast<int64_t>(block) * kCostBlock;
      const int64_t end = std::min(begin + kCostBlock, columns_);
      for (int64_t j = begin; j < end; ++j) {
        if (!(distances_[j] < two.second_value)) continue;
        if (distances_[j] < two.value) {
          two.second_value = two.value;
          two.second_column = two.column;
          two.value = distances_[j];
          two.column = j;
        } else {
          two.second_value = distances_[j];
          two.second_column = j;
        }
      }
    }
    return two;
  }

  // The nearest open column; among equals one that is free.
  int64_t Nearest() const {
    const double nearest =
        *std::min_element(smallest_.begin(), smallest_.end());
    int64_t first = -1;
    for (size_t block = 0; block < smallest_.size(); ++block) {
      if (smallest_[block] != nearest) continue;
      const int64_t begin = static_cast<int64_t>(block) * kCostBlock;
      const int64_t end = std::min(begin + kCostBlock, columns_);
      for (int64_t j = begin; j < end; ++j) {
        if (distances_[j] != nearest) continue;
        if (row_of_[j] < 0) return j;
        if (first < 0) first = j;
      }
    }
    return first;
  }

  // The shortest path, in reduced costs, from a free row to a free column.
  void Augment(int64_t free_row) {
    open_duals_ = duals_;
    std::fill(sources_.begin(), sources_.end(), free_row);
    ReduceCosts(Row(free_row), sign_, open_duals_.data(), columns_,
                distances_.data(), smallest_.data());
    closed_.clear();
    int64_t column = Nearest();
    while (row_of_[column] >= 0) {
      const double distance = distances_[column];
      const int64_t row = row_of_[column];
      closed_.push_back(column);
      final_[column] = distance;
      distances_[column] = kInfinity;
      open_duals_[column] = -kInfinity;
      // The row's dual is such that the reduced cost of its own pair is 0.
      const double offset =
          sign_ * Row(row)[column] - duals_[column] - distance;
      RelaxDistances(Row(row), sign_, open_duals_.data(), offset, row, columns_,
                     distances_.data(), sources_.data(), smallest_.data());
      column = Nearest();
    }
    const double length = distances_[column];
    for (const int64_t closed : closed_) {
      duals_[closed] += final_[closed] - length;
    }
    for (int64_t row = -1; row != free_row;) {
      row = sources_[column];
      const int64_t next = column_of_[row];
      Assign(row, column);
      column = next;
    }
  }

  void Assign(int64_t row, int64_t column) {
    column_of_[row] = column;
    row_of_[column] = row;
  }

  const T* const values_;
  const int64_t rows_, columns_;
  const double sign_;
  const std::function<absl::Status()>& poll_;
  int64_t steps_ = 0;
  std::vector<double> duals_;       // [columns]
  std::vector<double> open_duals_;  // ... -infinity: the path has been there
  std::vector<double> distances_;   // ... or reduced costs of a row
  std::vector<double> final_;       // [columns]: of those where it has been
  std::vector<double> smallest_;    // [blocks of columns]
  std::vector<int64_t> sources_;    // [columns]: the row before on the path
  std::vector<int64_t> closed_;
  std::vector<int64_t> column_of_, row_of_;
};

template <typename T>
absl::StatusOr<std::vector<int64_t>> Solve(
    const at::Tensor& values, double sign,
    const std::function<absl::Status()>& poll) {
  const T* const data = values.const_data_ptr<T>();
  const int64_t columns = values.size(1);
  for (int64_t i = 0; i < values.numel(); ++i) {
    if (std::isfinite(data[i])) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("values[", i / columns, "][", i % columns, "] is ",
                     data[i], "; accepted: finite values"));
  }
  const bool wide = values.size(0) <= columns;
  const at::Tensor rows = wide ? values : values.t().contiguous();
  Solver<T> solver(rows.const_data_ptr<T>(), rows.size(0), rows.size(1), sign,
                   poll);
  RETURN_IF_ERROR(solver.Solve());
  std::vector<int64_t> column_of = std::move(solver).column_of();
  if (wide) return column_of;
  std::vector<int64_t> turned(values.size(0), -1);
  for (size_t i = 0; i < column_of.size(); ++i) {
    turned[column_of[i]] = static_cast<int64_t>(i);
  }
  return turned;
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> AssignOneToOne(
    const at::Tensor& values, Objective objective,
    const std::function<absl::Status()>& poll) {
  using Result = absl::StatusOr<std::vector<int64_t>>;
  const bool is_double = values.scalar_type() == at::kDouble;
  if (values.dim() != 2 || !values.is_contiguous() || !values.is_cpu() ||
      !(is_double || values.scalar_type() == at::kFloat)) {
    return absl::InvalidArgumentError(
        "values: accepted: float32 or float64 [rows, columns], contiguous, on "
        "the CPU");
  }
  if (values.numel() == 0) return std::vector<int64_t>(values.size(0), -1);
  const double sign = objective == Objective::kMinimize ? 1 : -1;
  return model::CatchTorch("assigning one to one", [&]() -> Result {
    return is_double ? Solve<double>(values, sign, poll)
                     : Solve<float>(values, sign, poll);
  });
}

}  // namespace cupola::analysis
