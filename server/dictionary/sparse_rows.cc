#include "server/dictionary/sparse_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace cupola::dictionary {

absl::Status CheckOptions(const EncodeOptions& options, int64_t d_sae) {
  if (!(options.min_activation >= 0) || std::isinf(options.min_activation)) {
    return absl::InvalidArgumentError(
        absl::StrCat("min_activation is ", options.min_activation,
                     ": a finite number of at least 0 is accepted"));
  }
  if (options.top_k < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_k is ", options.top_k,
                     ": 0 (all) or a positive number is accepted"));
  }
  int64_t previous = -1;
  for (int32_t latent : options.latents) {
    if (latent < 0 || latent >= d_sae) {
      return absl::InvalidArgumentError(absl::StrCat(
          "latents holds ", latent, ": this dictionary has 0 to ", d_sae - 1));
    }
    if (latent <= previous) {
      return absl::InvalidArgumentError(
          absl::StrCat("latents holds ", latent, " after ", previous,
                       ": ascending, unique latents are accepted"));
    }
    previous = latent;
  }
  return absl::OkStatus();
}

absl::Status CheckRows(const SparseRows& rows, int64_t columns) {
  if (rows.columns != columns) {
    return absl::InvalidArgumentError(
        absl::StrCat("features have ", rows.columns,
                     " columns: this dictionary has ", columns, " latents"));
  }
  for (const at::Tensor* t : {&rows.indptr, &rows.indices, &rows.values}) {
    if (!t->defined() || t->dim() != 1 || !t->is_contiguous() ||
        !t->device().is_cpu()) {
      return absl::InvalidArgumentError(
          "features: indptr, indices and values must be vectors on the CPU");
    }
  }
  if (rows.indptr.scalar_type() != at::kLong ||
      rows.indices.scalar_type() != at::kInt ||
      rows.values.scalar_type() != at::kFloat) {
    return absl::InvalidArgumentError(
        "features: indptr must be int64, indices int32, values float32");
  }
  const int64_t entries = rows.indices.numel();
  if (rows.values.numel() != entries) {
    return absl::InvalidArgumentError(
        absl::StrCat("features: ", entries, " indices and ",
                     rows.values.numel(), " values"));
  }
  const int64_t* indptr = rows.indptr.const_data_ptr<int64_t>();
  const int64_t n = rows.indptr.numel() - 1;
  if (n < 0 || indptr[0] != 0 || indptr[n] != entries) {
    return absl::InvalidArgumentError(absl::StrCat(
        "features: indptr must begin with 0 and end with ", entries));
  }
  for (int64_t row = 0; row < n; ++row) {
    if (indptr[row + 1] < indptr[row]) {
      return absl::InvalidArgumentError(
          absl::StrCat("features: indptr decreases at row ", row));
    }
  }
  const int32_t* indices = rows.indices.const_data_ptr<int32_t>();
  const float* values = rows.values.const_data_ptr<float>();
  for (int64_t i = 0; i < entries; ++i) {
    if (indices[i] < 0 || indices[i] >= columns) {
      return absl::InvalidArgumentError(absl::StrCat(
          "features: index ", indices[i], " is outside 0 to ", columns - 1));
    }
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("features: the value of entry ", i, " is not finite"));
    }
  }
  return absl::OkStatus();
}

SparseRows SparseRowsBuilder::Build(int64_t rows, int64_t columns) && {
  std::sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) {
    return a.first_row < b.first_row;
  });
  SparseRows result;
  result.columns = columns;
  result.indptr = at::empty({rows + 1}, at::kLong);
  int64_t* indptr = result.indptr.data_ptr<int64_t>();
  int64_t entries = 0, row = 0;
  indptr[0] = 0;
  for (const Piece& piece : pieces_) {
    for (int64_t count : piece.counts) indptr[++row] = entries += count;
  }
  result.indices = at::empty({entries}, at::kInt);
  result.values = at::empty({entries}, at::kFloat);
  int32_t* indices = result.indices.data_ptr<int32_t>();
  float* values = result.values.data_ptr<float>();
  for (const Piece& piece : pieces_) {
    const size_t count = piece.indices.size();
    if (count == 0) continue;
    std::memcpy(indices, piece.indices.data(), count * sizeof(int32_t));
    std::memcpy(values, piece.values.data(), count * sizeof(float));
    indices += count;
    values += count;
  }
  return result;
}

}  // namespace cupola::dictionary
