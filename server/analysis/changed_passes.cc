#include "server/analysis/changed_passes.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using model::HookKind;
using model::HookPoint;

// Padded tokens of one pass over copies: enough for the products to run at full
// speed.
constexpr int64_t kBatchTokens = 2048;
// Values of logits that one pass over copies may return.
constexpr int64_t kLogitValues = int64_t{1} << 26;
// What the clean passes of several prompts together keep, and what one may.
constexpr int64_t kKeptBytes = int64_t{1} << 30;
constexpr int64_t kMaxKeptBytes = int64_t{4} << 30;

bool IsEmbedding(const HookPoint& point) {
  return point.layer < 0 && point.kind < HookKind::kResidPre;
}

int64_t FirstPosition(const ChangedCopy& copy) {
  int64_t first = copy.last + 1;
  for (const RowEdit& edit : copy.edits) {
    for (int64_t position : edit.positions) first = std::min(first, position);
  }
  return first;
}

}  // namespace

std::vector<std::vector<Placed>> GroupsThatFit(
    const std::vector<Placed>& sequences, int64_t bytes_per_token) {
  std::vector<std::vector<Placed>> groups;
  int64_t longest = 0;
  for (const Placed& placed : sequences) {
    const int64_t tokens = placed.sequence->tokens.size();
    longest = std::max(longest, tokens);
    if (groups.empty() || static_cast<int64_t>(groups.back().size() + 1) *
                                  longest * bytes_per_token >
                              kKeptBytes) {
      groups.emplace_back();
      longest = tokens;
    }
    groups.back().push_back(placed);
  }
  return groups;
}

int StartLayer(const HookPoint& point, const model::ModelConfig& config) {
  if (point.layer >= 0) return point.layer;
  return IsEmbedding(point) ? 0 : config.n_layers;
}

int64_t KeptBytesPerToken(const model::Model& model, int layer) {
  const model::ModelConfig& config = model.config();
  const int64_t heads = 2 * (config.n_layers - layer) * config.n_kv_heads;
  return (heads * config.d_head + config.d_model) *
         static_cast<int64_t>(c10::elementSize(model.options().dtype));
}

ChangedPasses::ChangedPasses(const model::Model& model,
                             const Dictionaries& dictionaries,
                             std::vector<const std::vector<int32_t>*> prompts,
                             std::set<HookPoint> captures,
                             std::function<absl::Status()> poll)
    : model_(model),
      dictionaries_(dictionaries),
      prompts_(std::move(prompts)),
      captures_(std::move(captures)),
      poll_(std::move(poll)) {}

ChangedPasses::Start ChangedPasses::StartOf(const ChangedCopy& copy) const {
  Start start;
  start.layer = model_.config().n_layers;
  int64_t last = -1;  // what is read last
  for (const HookPoint& point : captures_) {
    start.whole |= IsSquare(point);
    last = std::max(last, model::ForwardOrder(point));
  }
  for (const RowEdit& edit : copy.edits) {
    const Intervention& intervention = *edit.intervention;
    std::vector<HookPoint> points = {intervention.hook};
    if (intervention.on_latents()) points.push_back(intervention.hook_in);
    for (const HookPoint& point : points) {
      start.layer = std::min(start.layer, StartLayer(point, model_.config()));
      start.embeds |= IsEmbedding(point);
      start.whole |= IsSquare(point);
      // Only where the clean pass gets as far: else nobody reads them.
      start.logits |= point.kind == HookKind::kLogits &&
                      last >= model::ForwardOrder({HookKind::kFinalScale, -1});
    }
  }
  start.seen = start.embeds ||
               last >= model::ForwardOrder({HookKind::kResidPre, start.layer});
  return start;
}

std::vector<ChangedPasses::Job> ChangedPasses::JobsOf(
    const std::vector<ChangedCopy>& copies) const {
  std::vector<Job> jobs;
  for (size_t i = 0; i < copies.size(); ++i) {
    Job job{StartOf(copies[i]), 0, 0, i};
    const int64_t first = FirstPosition(copies[i]);
    // Nothing that is read changes.
    if (first > copies[i].last || !job.start.seen) continue;
    if (!job.start.whole) job.first = first;
    job.length = copies[i].last + 1 - job.first;
    jobs.push_back(job);
  }
  std::sort(jobs.begin(), jobs.end(), [&](const Job& a, const Job& b) {
    return std::tuple(a.start, -a.length, a.copy) <
           std::tuple(b.start, -b.length, b.copy);
  });
  return jobs;
}

absl::StatusOr<model::ForwardResult> ChangedPasses::RunClean(
    const std::vector<ChangedCopy>& copies) {
  model::ForwardRequest request;
  request.batch = model::TokenBatch::Pack(prompts_);
  request.captures = captures_;
  request.poll = poll_;
  std::set<int> layers;
  for (const ChangedCopy& copy : copies) {
    const Start start = StartOf(copy);
    if (start.seen) layers.insert(start.layer);
  }
  if (!layers.empty()) {
    request.keep = {*layers.begin(), {layers.begin(), layers.end()}};
    const int64_t bytes = request.batch.tokens.numel() *
                          KeptBytesPerToken(model_, *layers.begin());
    if (bytes > kMaxKeptBytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "prompts: continuing ", prompts_.size(), " of up to ",
          request.batch.tokens.size(1), " tokens from layer ", *layers.begin(),
          " keeps ", bytes, " bytes; accepted: ", kMaxKeptBytes));
    }
  }
  ASSIGN_OR_RETURN(model::ForwardResult forward, model_.Forward(request));
  kept_ = forward.kept;
  return forward;
}

absl::Status ChangedPasses::RunCopies(
    const std::vector<ChangedCopy>& copies,
    const std::function<absl::Status(const ChangedBatch&)>& consume) {
  const std::vector<Job> jobs = JobsOf(copies);
  for (size_t begin = 0; begin < jobs.size();) {
    // The longest comes first: it alone decides the padded length.
    const Job& longest = jobs[begin];
    int64_t rows = std::max<int64_t>(1, kBatchTokens / longest.length);
    if (longest.start.logits) {
      rows = std::clamp<int64_t>(
          kLogitValues / (longest.length * model_.config().d_vocab), 1, rows);
    }
    size_t end = begin;
    while (end < jobs.size() && end < begin + rows &&
           jobs[end].start == longest.start &&
           // A change of scores can unmask padding: then there is none.
           (longest.start.whole ? jobs[end].length == longest.length
                                : 4 * jobs[end].length >= 3 * longest.length)) {
      ++end;
    }
    std::vector<Job> batch(jobs.begin() + begin, jobs.begin() + end);
    // Copies of one prompt next to each other share its keys and values.
    std::sort(batch.begin(), batch.end(), [&](const Job& a, const Job& b) {
      return std::pair(copies[a.copy].prompt, a.copy) <
             std::pair(copies[b.copy].prompt, b.copy);
    });
    RETURN_IF_ERROR(poll_());
    ASSIGN_OR_RETURN(const ChangedBatch done, RunBatch(copies, batch));
    RETURN_IF_ERROR(consume(done));
    begin = end;
  }
  return absl::OkStatus();
}

at::Tensor ChangedPasses::StartResidual(const std::vector<ChangedCopy>& copies,
                                        const std::vector<Job>& jobs) const {
  const at::Tensor& all = kept_->residuals.at(jobs.front().start.layer);
  const int64_t positions = all.size(1);
  int64_t longest = 0;
  for (const Job& job : jobs) longest = std::max(longest, job.length);
  std::vector<int64_t> index;
  for (const Job& job : jobs) {
    const int64_t row = copies[job.copy].prompt * positions;
    for (int64_t i = 0; i < longest; ++i) {
      // Padding repeats the last position: any finite value does.
      index.push_back(row + std::min(job.first + i, positions - 1));
    }
  }
  return all.flatten(0, 1)
      .index_select(0, at::tensor(index, at::kLong).to(all.device()))
      .view({static_cast<int64_t>(jobs.size()), longest, all.size(2)});
}

absl::StatusOr<ChangedBatch> ChangedPasses::RunBatch(
    const std::vector<ChangedCopy>& copies, const std::vector<Job>& jobs) {
  const Start& start = jobs.front().start;
  ChangedBatch batch;
  std::vector<std::vector<int32_t>> tails;
  std::vector<std::vector<RowEdit>> edits;
  model::ForwardRequest request;
  for (const Job& job : jobs) {
    const ChangedCopy& copy = copies[job.copy];
    const std::vector<int32_t>& prompt = *prompts_[copy.prompt];
    tails.emplace_back(prompt.begin() + job.first,
                       prompt.begin() + job.first + job.length);
    edits.push_back(EditsWithin(copy.edits, job.first, copy.last));
    batch.copies.push_back(job.copy);
    batch.first.push_back(job.first);
    if (!start.whole) request.continuation.kept_rows.push_back(copy.prompt);
  }
  std::vector<const std::vector<int32_t>*> rows;
  for (const auto& tail : tails) rows.push_back(&tail);
  request.batch = model::TokenBatch::Pack(rows);
  request.start_layer = start.layer;
  if (!start.embeds) request.start_residual = StartResidual(copies, jobs);
  if (!start.whole) {
    request.continuation.kept = kept_;
    request.continuation.first = batch.first;
  }
  const int64_t from = model::ForwardOrder({HookKind::kResidPre, start.layer});
  for (const HookPoint& point : captures_) {
    if (start.embeds || model::ForwardOrder(point) >= from) {
      request.captures.insert(point);
    }
  }
  request.logits = start.logits;
  Edits changes(dictionaries_, edits);
  request.edits = changes.points();
  request.edit = [&](const HookPoint& point, at::Tensor* value) {
    return changes.Apply(point, value);
  };
  request.poll = poll_;
  ASSIGN_OR_RETURN(batch.forward, model_.Forward(request));
  return batch;
}

}  // namespace cupola::analysis
