#include "server/analysis/logit_lens.h"

#include <algorithm>
#include <utility>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"
#include "server/analysis/readout.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"
#include "server/model/weights.h"

namespace cupola::analysis {
namespace {

using enum model::HookKind;

// Logits held at a time.
constexpr int64_t kChunkValues = int64_t{1} << 24;

// One chunk's answers, in the record's order.
using Columns = std::vector<at::Tensor>;

// logits: [rows, d_vocab] float32.
Columns Read(const at::Tensor& logits, const LogitLensQuery& query) {
  const at::Tensor tokens = at::tensor(query.tokens, at::kLong);
  ReadoutRequest request;
  request.answers = tokens.unsqueeze(0).expand({logits.size(0), -1});
  request.top = query.top;
  const Readout readout = ReadLogits(logits, request);
  const at::Tensor chosen = logits.index_select(-1, tokens.to(logits.device()));
  return {readout.top_tokens, readout.top_logits, chosen, readout.logprob,
          readout.rank};
}

}  // namespace

std::vector<model::HookPoint> AccumulatedResiduals(
    const model::ModelConfig& config, bool mids) {
  std::vector<model::HookPoint> residuals;
  for (int layer = 0; layer < config.n_layers; ++layer) {
    residuals.push_back({kResidPre, layer});
    if (mids && !config.parallel_blocks)
      residuals.push_back({kResidMid, layer});
  }
  residuals.push_back({kResidPost, config.n_layers - 1});
  return residuals;
}

std::string ResidualLabel(const model::HookPoint& residual,
                          const model::ModelConfig& config) {
  if (residual.kind == kResidPost) {
    return residual.layer == config.n_layers - 1
               ? "final_post"
               : absl::StrCat(residual.layer, "_post");
  }
  return absl::StrCat(residual.layer,
                      residual.kind == kResidMid ? "_mid" : "_pre");
}

LogitLensAnalysis::LogitLensAnalysis(LogitLensQuery query)
    : query_(std::move(query)) {}

storage::Digest LogitLensAnalysis::Identity(const LogitLensQuery& query) {
  storage::Hasher hasher("logit-lens/1");
  hasher.AddInt(query.top)
      .AddInts(query.tokens.data(), query.tokens.size())
      .AddInt(query.residuals.size());
  for (const model::HookPoint& residual : query.residuals) {
    hasher.AddBytes(model::HookName(residual));
  }
  return hasher.Finish();
}

std::set<model::HookPoint> LogitLensAnalysis::captures() const {
  return {query_.residuals.begin(), query_.residuals.end()};
}

absl::StatusOr<std::vector<std::vector<storage::Array>>> LogitLensAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  std::vector<at::Tensor> stack;
  for (const model::HookPoint& residual : query_.residuals) {
    ASSIGN_OR_RETURN(at::Tensor x, GatherRows(pass, residual, sequences));
    stack.push_back(std::move(x));
  }
  const at::Tensor all = at::stack(stack, 1).flatten(0, 1);  // [rows * R, d]
  const int64_t chunk =
      std::max<int64_t>(1, kChunkValues / pass.model->config().d_vocab);
  std::vector<Columns> chunks;
  int64_t begin = 0;
  do {  // once for no rows at all, which have shapes too
    RETURN_IF_ERROR(pass.poll());
    const at::Tensor x =
        all.narrow(0, begin, std::min(chunk, all.size(0) - begin));
    ASSIGN_OR_RETURN(const at::Tensor logits,
                     pass.model->Unembed(model::ApplyNorm(
                         pass.model->weights().final_norm, x)));
    chunks.push_back(Read(logits.to(at::kFloat), query_));
    begin += chunk;
  } while (begin < all.size(0));

  const int64_t residuals = query_.residuals.size();
  std::vector<std::vector<storage::Array>> records(sequences.size());
  for (size_t column = 0; column < chunks.front().size(); ++column) {
    std::vector<at::Tensor> parts;
    for (const Columns& columns : chunks) parts.push_back(columns[column]);
    const at::Tensor values =
        at::cat(parts).unflatten(0, {all.size(0) / residuals, residuals});
    const bool integers = !values.is_floating_point();
    begin = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int64_t rows = RowCount(*sequences[i].sequence);
      records[i].push_back(ToArray(
          values.narrow(0, begin, rows),
          integers ? storage::DType::kInt32 : storage::DType::kFloat32));
      begin += rows;
    }
  }
  return records;
}

}  // namespace cupola::analysis
