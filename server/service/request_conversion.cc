#include "server/service/request_conversion.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/tensor_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

template <typename T>
T At(const engine::Array& array, int64_t index) {
  T value;
  std::memcpy(&value, array.bytes.data() + index * sizeof value, sizeof value);
  return value;
}

// The invariants of CSR: indptr starts at 0, never falls and ends at the number
// of entries; within a row the indices ascend and stay below `columns`.
absl::Status CheckRows(const engine::SparseArrays& rows) {
  const int64_t count = rows.indptr.shape[0] - 1;
  const int64_t entries = rows.indices.shape[0];
  if (rows.values.shape[0] != entries) {
    return InvalidArgumentError(
        StrCat("features.values has ", rows.values.shape[0], " entries and ",
               "features.indices ", entries, "; accepted: as many of both"));
  }
  if (rows.columns <= 0) {
    return InvalidArgumentError(StrCat("features.columns is ", rows.columns,
                                       "; accepted: the dictionary's d_sae"));
  }
  if (At<int64_t>(rows.indptr, 0) != 0 ||
      At<int64_t>(rows.indptr, count) != entries) {
    return InvalidArgumentError(
        StrCat("features.indptr runs from ", At<int64_t>(rows.indptr, 0),
               " to ", At<int64_t>(rows.indptr, count),
               "; accepted: from 0 to the number of entries, ", entries));
  }
  for (int64_t row = 0; row < count; ++row) {
    const int64_t begin = At<int64_t>(rows.indptr, row);
    const int64_t end = At<int64_t>(rows.indptr, row + 1);
    if (end < begin || end > entries) {
      return InvalidArgumentError(StrCat("features.indptr[", row + 1, "] is ",
                                         end, "; accepted: ", begin, " to ",
                                         entries));
    }
    int64_t least = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t index = At<uint32_t>(rows.indices, i);
      if (index < least || index >= rows.columns) {
        return InvalidArgumentError(
            StrCat("features.indices[", i, "] is ", index, " in row ", row,
                   "; accepted: ", least, " to ", rows.columns - 1,
                   ", ascending within a row"));
      }
      least = index + 1;
    }
  }
  return CheckFinite(rows.values, "features.values");
}

absl::StatusOr<engine::SparseArrays> TakeRows(v1::SparseRows* rows) {
  using storage::DType;
  engine::SparseArrays plain;
  ASSIGN_OR_RETURN(
      plain.indptr,
      TakeArray(rows->mutable_indptr(), "features.indptr", DType::kInt64, 1));
  ASSIGN_OR_RETURN(plain.indices,
                   TakeArray(rows->mutable_indices(), "features.indices",
                             DType::kUInt32, 1));
  ASSIGN_OR_RETURN(
      plain.values,
      TakeArray(rows->mutable_values(), "features.values", DType::kFloat32, 1));
  plain.columns = rows->columns();
  if (plain.indptr.shape[0] < 2) {
    return InvalidArgumentError(StrCat("features.indptr has ",
                                       plain.indptr.shape[0],
                                       " entries; accepted: at least one row, "
                                       "so at least 2"));
  }
  RETURN_IF_ERROR(CheckRows(plain));
  return plain;
}

// Prompts, or what stands for them.
template <typename Message, typename Plain>
absl::Status TakeSource(Message* request, Plain* plain) {
  constexpr bool features = requires { request->has_features(); };
  if (request->has_prompts()) return TakeSelection(request, plain);
  if (request->has_inputs()) {
    RETURN_IF_ERROR(RefusePositions(request->has_positions(), "inputs"));
    ASSIGN_OR_RETURN(plain->inputs, TakeInputs(request->mutable_inputs()));
    return absl::OkStatus();
  }
  if constexpr (features) {
    if (request->has_features()) {
      RETURN_IF_ERROR(RefusePositions(request->has_positions(), "features"));
      ASSIGN_OR_RETURN(plain->features, TakeRows(request->mutable_features()));
      return absl::OkStatus();
    }
  }
  return InvalidArgumentError(
      StrCat("the request has no source; accepted: prompts",
             features ? ", inputs or features" : " or inputs"));
}

absl::Status CheckMinActivation(float value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return InvalidArgumentError(
      StrCat("min_activation is ", value, "; accepted: finite and >= 0"));
}

}  // namespace

absl::StatusOr<engine::TokenizeRequest> FromProto(v1::TokenizeRequest request) {
  engine::TokenizeRequest plain;
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  plain.model = std::move(*request.mutable_model());
  // Nothing is computed, so an empty text is as good as any.
  ASSIGN_OR_RETURN(plain.prompts, TakePrompts(request.mutable_prompts(),
                                              /*accept_empty=*/true));
  return plain;
}

absl::StatusOr<engine::ActivationsRequest> FromProto(
    v1::ActivationsRequest request) {
  engine::ActivationsRequest plain;
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  plain.model = std::move(*request.mutable_model());
  if (request.hooks().empty()) {
    return InvalidArgumentError(
        "hooks is empty; accepted: at least one hook point");
  }
  ASSIGN_OR_RETURN(plain.hooks, TakeNames(request.mutable_hooks(), "hooks"));
  switch (request.dtype()) {
    case v1::DTYPE_UNSPECIFIED:
      break;
    case v1::FLOAT32:
    case v1::BFLOAT16:
    case v1::FLOAT16:
      plain.dtype = static_cast<storage::DType>(request.dtype());
      break;
    default:
      return InvalidArgumentError(
          StrCat("dtype is ", static_cast<int>(request.dtype()), " (",
                 v1::DType_Name(request.dtype()),
                 "); accepted: FLOAT32, BFLOAT16, FLOAT16 or unset"));
  }
  RETURN_IF_ERROR(TakeQuestion(&request, &plain));
  return plain;
}

absl::StatusOr<engine::FeaturesRequest> FromProto(v1::FeaturesRequest request) {
  engine::FeaturesRequest plain;
  RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
  RETURN_IF_ERROR(CheckMinActivation(request.min_activation()));
  plain.dictionary = std::move(*request.mutable_dictionary());
  plain.latents.assign(request.latents().begin(), request.latents().end());
  plain.top_k = request.top_k();
  plain.min_activation = request.min_activation();
  ASSIGN_OR_RETURN(plain.processing,
                   ProcessingFromProto(request.processing(), "processing"));
  RETURN_IF_ERROR(TakeSource(&request, &plain));
  return plain;
}

absl::StatusOr<engine::ReconstructRequest> FromProto(
    v1::ReconstructRequest request) {
  engine::ReconstructRequest plain;
  RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
  plain.dictionary = std::move(*request.mutable_dictionary());
  ASSIGN_OR_RETURN(plain.processing,
                   ProcessingFromProto(request.processing(), "processing"));
  RETURN_IF_ERROR(TakeSource(&request, &plain));
  return plain;
}

}  // namespace cupola::service
