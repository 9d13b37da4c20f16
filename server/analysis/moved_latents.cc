#include "server/analysis/moved_latents.h"

#include <algorithm>

#include "server/analysis/sandwich.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// Hidden activations, and dense activations, held at a time.
constexpr int64_t kHiddenValues = int64_t{1} << 21;
constexpr int64_t kDenseValues = int64_t{1} << 23;
constexpr int64_t kMinDenseRows = 32;

// What `in`'s decoder adds to x per unit of a latent at a token: [m, d].
at::Tensor DirectionsOf(const MlpBridge& bridge,
                        const dictionary::Dictionary& in,
                        const at::Tensor& read, const at::Tensor& latents) {
  const at::Tensor rows = bridge.decoder().rows.index_select(0, latents);
  const at::Tensor scale = DecodeScale(in, read);
  return scale.defined() ? rows * scale : rows;
}

// What dense activations of a chunk's rows hold of the segments' latents.
class DenseReader {
 public:
  explicit DenseReader(const std::vector<ScreenedSegment>& segments)
      : segments_(segments) {}

  // Rows [first, first + acts' rows), which follow those before.
  at::Tensor Next(int64_t first, const at::Tensor& acts) {
    const int64_t end = first + acts.size(0);
    std::vector<int64_t> rows, latents;
    while (next_ < segments_.size() && segments_[next_].begin < end) {
      const ScreenedSegment& segment = segments_[next_];
      for (int64_t row = std::max(first, segment.begin);
           row < std::min(end, segment.end); ++row) {
        rows.insert(rows.end(), segment.latents.size(), row - first);
        latents.insert(latents.end(), segment.latents.begin(),
                       segment.latents.end());
      }
      if (segment.end > end) break;
      ++next_;
    }
    const auto index = [&acts](const std::vector<int64_t>& values) {
      return at::tensor(values, at::kLong).to(acts.device());
    };
    return acts.index({index(rows), index(latents)}).cpu();
  }

 private:
  const std::vector<ScreenedSegment>& segments_;
  size_t next_ = 0;
};

}  // namespace

absl::StatusOr<at::Tensor> MovedOutputs(
    const Pass& pass, const MlpBridge& bridge, const dictionary::Dictionary& in,
    const at::Tensor& read, const at::Tensor& x, const Moves& moves) {
  const int64_t count = moves.token.size(0), points = moves.amounts.size(1);
  const int64_t step =
      std::max<int64_t>(1, kHiddenValues / (points * bridge.place().d_mlp));
  std::vector<at::Tensor> parts;
  for (int64_t from = 0; from < count; from += step) {
    RETURN_IF_ERROR(pass.poll());
    const int64_t some = std::min(step, count - from);
    const at::Tensor token = moves.token.narrow(0, from, some);
    const at::Tensor direction =
        DirectionsOf(bridge, in, read.index_select(0, token),
                     moves.in.narrow(0, from, some));
    const at::Tensor rows =
        at::addcmul(x.index_select(0, token).unsqueeze(1),
                    moves.amounts.narrow(0, from, some).unsqueeze(2),
                    direction.unsqueeze(1));
    parts.push_back(bridge.Evaluate(pass.model, rows.flatten(0, 1)).y);
  }
  return at::cat(parts);
}

LatentReader::LatentReader(const MlpBridge& bridge,
                           const dictionary::Dictionary& out)
    : out_(out) {
  if (LatentScreen::Serves(out)) screen_.emplace(out, bridge.encoder().rows);
}

absl::StatusOr<at::Tensor> LatentReader::Read(
    const Pass& pass, const at::Tensor& y,
    const std::vector<ScreenedSegment>& segments, ScreenCounts* counts) const {
  if (screen_.has_value()) {
    return screen_->Activations(y, segments, pass.poll, counts);
  }
  DenseReader reader(segments);
  const int64_t rows = segments.empty() ? 0 : segments.back().end;
  *counts += {rows * out_.d_sae(), rows * out_.d_sae()};
  const int64_t step = std::max(kMinDenseRows, kDenseValues / out_.d_sae());
  std::vector<at::Tensor> parts = {at::empty({0}, at::kFloat)};
  for (int64_t first = 0; first < rows; first += step) {
    RETURN_IF_ERROR(pass.poll());
    const int64_t some = std::min(step, rows - first);
    ASSIGN_OR_RETURN(const at::Tensor acts,
                     out_.EncodeDense(y.narrow(0, first, some)));
    parts.push_back(reader.Next(first, acts));
  }
  return at::cat(parts);
}

}  // namespace cupola::analysis
