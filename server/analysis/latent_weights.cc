#include "server/analysis/latent_weights.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "ATen/ATen.h"
#include "server/analysis/latent_vectors.h"
#include "server/analysis/logit_weights.h"
#include "server/analysis/residual_writes.h"
#include "server/analysis/tensor_io.h"
#include "server/model/logit_directions.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using dictionary::Dictionary;
using Records = std::vector<std::vector<storage::Array>>;

constexpr double kMinimumNorm = 1e-12;
// Latents whose logits over the whole vocabulary are held at a time.
constexpr int64_t kChunkLatents = 64;

at::Tensor Index(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

at::Tensor Normalized(const at::Tensor& rows) {
  return rows / at::linalg_vector_norm(rows, 2, {-1}, /*keepdim=*/true)
                    .clamp_min(kMinimumNorm);
}

Records Record(const at::Tensor& indices, const at::Tensor& values) {
  return {{ToArray(indices, storage::DType::kInt32),
           ToArray(values, storage::DType::kFloat32)}};
}

// A query's kind with the dictionary, its output's hook point and the pass.
struct Answering {
  const Dictionary& dictionary;
  const model::HookPoint& hook_out;
  const Pass& pass;

  absl::StatusOr<Records> operator()(const NearestQuery& query) const {
    const at::Tensor all = Normalized(LatentVectors(dictionary, query.side));
    at::Tensor asked;
    if (query.latents.empty()) {
      asked = Normalized(ViewOf(query.vectors).to(all.device()));
    } else {
      asked = all.index_select(0, Index(query.latents, all.device()));
    }
    const at::Tensor self = Index(query.latents, all.device()).unsqueeze(1);
    std::vector<at::Tensor> indices, values;
    for (int64_t begin = 0; begin < asked.size(0); begin += kChunkLatents) {
      RETURN_IF_ERROR(pass.poll());
      const int64_t count = std::min(kChunkLatents, asked.size(0) - begin);
      at::Tensor cosines =
          at::mm(asked.narrow(0, begin, count), all.t());  // [count, d_sae]
      if (!query.latents.empty()) {
        cosines.scatter_(1, self.narrow(0, begin, count),
                         -std::numeric_limits<double>::infinity());
      }
      const auto [largest, where] = LargestOfRows(cosines, query.top_k);
      // Copies: a part would keep the whole sort.
      values.push_back(largest.contiguous());
      indices.push_back(where.contiguous());
    }
    return Record(at::cat(indices), at::cat(values));
  }

  absl::StatusOr<Records> operator()(const TokensQuery& query) const {
    const at::Tensor asked =
        LatentVectors(dictionary, LatentSide::kDecoder, query.latents);
    std::vector<at::Tensor> indices, values;
    for (int64_t begin = 0; begin < asked.size(0); begin += kChunkLatents) {
      RETURN_IF_ERROR(pass.poll());
      const at::Tensor chunk = asked.narrow(
          0, begin, std::min(kChunkLatents, asked.size(0) - begin));
      const at::Tensor logits = model::ProjectToLogits(
          *pass.model, ToResidual(*pass.model, hook_out, chunk), query.gain);
      const auto [top, top_ids] = LargestOfRows(logits, query.top);
      const auto [bottom, bottom_ids] = LargestOfRows(-logits, query.bottom);
      indices.push_back(at::cat({top_ids, bottom_ids}, -1));
      values.push_back(at::cat({top, -bottom}, -1));
    }
    return Record(at::cat(indices), at::cat(values));
  }

  absl::StatusOr<Records> operator()(const LogitsQuery& query) const {
    at::Tensor directions =
        model::LogitDirectionsOf(*pass.model, query.tokens, query.gain).rows;
    if (!query.incorrect.empty()) {
      directions = directions - model::LogitDirectionsOf(
                                    *pass.model, query.incorrect, query.gain)
                                    .rows;
    }
    const at::Tensor all = ToResidual(
        *pass.model, hook_out, LatentVectors(dictionary, LatentSide::kDecoder));
    return Record(at::empty({0}, at::kInt), at::mm(directions, all.t()));
  }

  absl::StatusOr<Records> operator()(const GramQuery& query) const {
    at::Tensor rows = LatentVectors(dictionary, query.side, query.latents);
    if (query.normalize) rows = Normalized(rows);
    at::Tensor gram = at::mm(rows, rows.t());
    if (query.threshold > 0) {
      gram.masked_fill_(gram.abs() < query.threshold, 0);
    }
    return Record(at::empty({0}, at::kInt), gram);
  }

  absl::StatusOr<Records> operator()(const LogitWeightsQuery& query) const {
    ASSIGN_OR_RETURN(const LogitWeights weights,
                     LogitWeightsOf(dictionary, hook_out, *pass.model,
                                    query.latents, query.options, pass.poll));
    Records records = Record(weights.tokens, weights.values);
    records[0].push_back(ToArray(weights.histogram, storage::DType::kInt64));
    records[0].push_back(ToArray(weights.ends, storage::DType::kFloat32));
    return records;
  }
};

struct Hashing {
  storage::Hasher& hasher;
  void Add(const std::vector<int64_t>& values) const {
    hasher.AddInts(values.data(), values.size());
  }
  void operator()(const NearestQuery& query) const {
    hasher.AddInt(static_cast<int64_t>(query.side)).AddInt(query.top_k);
    Add(query.latents);
    Add(query.vectors.shape);
    hasher.AddBytes(query.vectors.bytes);
  }
  void operator()(const TokensQuery& query) const {
    hasher.AddInt(query.top).AddInt(query.bottom).AddInt(query.gain);
    Add(query.latents);
  }
  void operator()(const LogitWeightsQuery& query) const {
    const LogitWeightsOptions& options = query.options;
    hasher.AddInt(options.top)
        .AddInt(options.bottom)
        .AddInt(options.bins)
        .AddInt(options.gain);
    Add(query.latents);
  }
  void operator()(const LogitsQuery& query) const {
    hasher.AddInt(query.gain);
    Add(query.tokens);
    Add(query.incorrect);
  }
  void operator()(const GramQuery& query) const {
    hasher.AddInt(static_cast<int64_t>(query.side))
        .AddInt(query.normalize)
        .AddDouble(query.threshold);
    Add(query.latents);
  }
};

}  // namespace

bool NeedsModel(const LatentQuery& query) {
  return std::holds_alternative<TokensQuery>(query) ||
         std::holds_alternative<LogitsQuery>(query) ||
         std::holds_alternative<LogitWeightsQuery>(query);
}

LatentWeightsAnalysis::LatentWeightsAnalysis(
    std::shared_ptr<const Dictionary> dictionary, model::HookPoint hook_out,
    LatentQuery query)
    : dictionary_(std::move(dictionary)),
      hook_out_(hook_out),
      query_(std::move(query)) {}

storage::Digest LatentWeightsAnalysis::Identity(
    const storage::Digest& dictionary, dictionary::Half half,
    const LatentQuery& query) {
  storage::Hasher hasher("latent-weights/1");
  hasher.AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInt(static_cast<int64_t>(query.index()));
  std::visit(Hashing{hasher}, query);
  return hasher.Finish();
}

absl::StatusOr<Records> LatentWeightsAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& /*sequences*/) const {
  return std::visit(Answering{*dictionary_, hook_out_, pass}, query_);
}

}  // namespace cupola::analysis
