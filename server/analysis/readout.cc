#include "server/analysis/readout.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "ATen/Parallel.h"
#include "server/analysis/logit_rows.h"
#include "server/dictionary/selection.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// Logits that exist at a time: enough rows for the unembedding to run at full
// speed, few enough to stay near the processor.
constexpr int64_t kChunkValues = int64_t{1} << 23;
constexpr int64_t kMinimumRows = 64;

Readout Allocate(int64_t rows, int64_t d_vocab, const ReadoutRequest& request) {
  const int64_t answers = request.answers.size(1);
  Readout readout = {at::empty({rows, answers}, at::kFloat),
                     at::empty({rows, answers}, at::kInt),
                     at::empty({rows, request.top}, at::kInt),
                     at::empty({rows, request.top}, at::kFloat)};
  if (request.distribution) {
    readout.distribution = at::empty({rows, d_vocab}, at::kFloat);
  }
  return readout;
}

void ReadTop(const at::Tensor& logits, int64_t top, int64_t begin,
             Readout* out) {
  const int64_t width = logits.size(1);
  int32_t* tokens = out->top_tokens.mutable_data_ptr<int32_t>() + begin * top;
  float* values = out->top_logits.mutable_data_ptr<float>() + begin * top;
  // Logits that are no numbers (an intervention can make them) are none of the
  // largest: what is missing then is token -1.
  std::fill_n(tokens, logits.size(0) * top, -1);
  std::fill_n(values, logits.size(0) * top,
              std::numeric_limits<float>::quiet_NaN());
  dictionary::SelectionScratch scratch;
  std::vector<int32_t> chosen;
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const float* from = logits.const_data_ptr<float>() + row * width;
    chosen.clear();
    dictionary::SelectTopK(from, width, top,
                           -std::numeric_limits<float>::infinity(), &scratch,
                           &chosen);
    std::stable_sort(
        chosen.begin(), chosen.end(),
        [from](int32_t a, int32_t b) { return from[a] > from[b]; });
    for (size_t i = 0; i < chosen.size(); ++i) {
      tokens[row * top + i] = chosen[i];
      values[row * top + i] = from[chosen[i]];
    }
  }
}

// Log-probabilities and ranks of some rows' answers.
void ReadAnswersOnCpu(const at::Tensor& logits, const at::Tensor& answers,
                      int64_t begin, Readout* out) {
  const int64_t width = logits.size(1), columns = answers.size(1);
  const float* values = logits.const_data_ptr<float>();
  const int64_t* tokens = answers.const_data_ptr<int64_t>();
  float* logprob = out->logprob.mutable_data_ptr<float>() + begin * columns;
  int32_t* rank = out->rank.mutable_data_ptr<int32_t>() + begin * columns;
  at::parallel_for(0, logits.size(0), 1, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* from = values + row * width;
      const double all = LogSumExp(from, width);
      for (int64_t i = row * columns; i < (row + 1) * columns; ++i) {
        const bool known = tokens[i] >= 0;
        logprob[i] = known ? static_cast<float>(from[tokens[i]] - all)
                           : std::numeric_limits<float>::quiet_NaN();
        rank[i] =
            known
                ? static_cast<int32_t>(CountAbove(from, width, from[tokens[i]]))
                : -1;
      }
    }
  });
}

void ReadAnswersOnDevice(const at::Tensor& logits, const at::Tensor& answers,
                         int64_t begin, Readout* out) {
  const int64_t rows = logits.size(0);
  const at::Tensor missing = answers < 0;
  const at::Tensor chosen =
      logits.gather(1, answers.clamp_min(0).to(logits.device()));
  const at::Tensor all = at::logsumexp(logits, {1}, /*keepdim=*/true);
  out->logprob.narrow(0, begin, rows)
      .copy_(
          (chosen - all)
              .cpu()
              .masked_fill_(missing, std::numeric_limits<double>::quiet_NaN()));
  for (int64_t i = 0; i < answers.size(1); ++i) {
    out->rank.narrow(0, begin, rows)
        .select(1, i)
        .copy_(logits.gt(chosen.narrow(1, i, 1)).sum(1));
  }
  out->rank.narrow(0, begin, rows).masked_fill_(missing, -1);
}

// Writes what is read from `logits` to the rows of `out` from `begin` on.
void Read(const at::Tensor& logits, const ReadoutRequest& request,
          int64_t begin, Readout* out) {
  const at::Tensor wide = logits.to(at::kFloat).contiguous();
  const at::Tensor answers =
      request.answers.narrow(0, begin, logits.size(0)).contiguous();
  if (wide.device().is_cpu()) {
    ReadAnswersOnCpu(wide, answers, begin, out);
  } else {
    ReadAnswersOnDevice(wide, answers, begin, out);
  }
  if (request.top > 0) ReadTop(wide.cpu(), request.top, begin, out);
  if (request.distribution) {
    out->distribution.narrow(0, begin, logits.size(0))
        .copy_(at::log_softmax(wide, 1));
  }
}

}  // namespace

absl::StatusOr<Readout> ReadRows(const model::Model& model,
                                 const at::Tensor& rows,
                                 const ReadoutRequest& request,
                                 const std::function<absl::Status()>& poll) {
  const int64_t count = rows.size(0);
  const int64_t chunk =
      std::max(kMinimumRows, kChunkValues / model.config().d_vocab);
  Readout readout = Allocate(count, model.config().d_vocab, request);
  for (int64_t begin = 0; begin < count; begin += chunk) {
    RETURN_IF_ERROR(poll());
    const int64_t some = std::min(chunk, count - begin);
    ASSIGN_OR_RETURN(const at::Tensor logits,
                     model.Unembed(rows.narrow(0, begin, some)));
    Read(logits, request, begin, &readout);
  }
  return readout;
}

Readout ReadLogits(const at::Tensor& logits, const ReadoutRequest& request) {
  Readout readout = Allocate(logits.size(0), logits.size(1), request);
  Read(logits, request, 0, &readout);
  return readout;
}

}  // namespace cupola::analysis
