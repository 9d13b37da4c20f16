#include "server/engine/ask_directions.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/rows.h"
#include "server/engine/begin_bridge.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

constexpr int64_t kMaxSamples = 1 << 24;
constexpr int64_t kMaxPoints = 100'000;

absl::Status CheckLatents(const std::vector<uint32_t>& latents, size_t samples,
                          int64_t d_sae, absl::string_view field) {
  if (latents.size() != samples) {
    return InvalidArgumentError(StrCat(field, " has ", latents.size(),
                                       " entries and samples.rows ", samples,
                                       "; accepted: as many of both"));
  }
  for (size_t i = 0; i < samples; ++i) {
    if (latents[i] >= d_sae) {
      return InvalidArgumentError(StrCat(field, "[", i, "] is ", latents[i],
                                         ", not below d_sae = ", d_sae));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSamples(const DirectionQuestion& request,
                          const analysis::SampleDraw& draw, int64_t rows,
                          int64_t d_in, int64_t d_out) {
  const size_t samples = request.rows.size();
  const int64_t wanted =
      draw.count > 0 ? draw.count * rows : static_cast<int64_t>(samples);
  if (wanted > kMaxSamples) {
    return absl::ResourceExhaustedError(StrCat(
        wanted, " samples are asked for; one request takes ", kMaxSamples));
  }
  if (draw.count > 0) return absl::OkStatus();
  RETURN_IF_ERROR(
      CheckLatents(request.in_latents, samples, d_in, "samples.in_latents"));
  RETURN_IF_ERROR(
      CheckLatents(request.out_latents, samples, d_out, "samples.out_latents"));
  if (!request.deltas.empty() && request.deltas.size() != samples) {
    return InvalidArgumentError(StrCat("samples.deltas has ",
                                       request.deltas.size(),
                                       " entries and samples.rows ", samples,
                                       "; accepted: none, or as many of both"));
  }
  for (size_t i = 0; i < samples; ++i) {
    if (request.rows[i] >= rows) {
      return InvalidArgumentError(StrCat("samples.rows[", i, "] is ",
                                         request.rows[i], "; there are ", rows,
                                         " selected tokens"));
    }
  }
  for (size_t i = 0; i < request.deltas.size(); ++i) {
    if (!std::isfinite(request.deltas[i])) {
      return InvalidArgumentError(StrCat("samples.deltas[", i, "] is ",
                                         request.deltas[i],
                                         "; accepted: finite"));
    }
  }
  return absl::OkStatus();
}

// Moves the samples into the sequences whose rows they are about.
void PlaceSamples(const DirectionQuestion& request, Question* question) {
  int64_t first = 0;
  for (auto& slot : question->sequences) {
    auto sequence = std::make_shared<analysis::Sequence>(*slot);
    const int64_t rows = analysis::RowCount(*sequence);
    std::vector<std::vector<int64_t>> lists(request.deltas.empty() ? 3 : 4);
    for (size_t i = 0; i < request.rows.size(); ++i) {
      const int64_t row = static_cast<int64_t>(request.rows[i]) - first;
      if (row < 0 || row >= rows) continue;
      lists[0].push_back(row);
      lists[1].push_back(request.in_latents[i]);
      lists[2].push_back(request.out_latents[i]);
      if (request.deltas.empty()) continue;
      int32_t bits;
      std::memcpy(&bits, &request.deltas[i], sizeof(bits));
      lists[3].push_back(bits);
    }
    sequence->lists = std::move(lists);
    slot = std::move(sequence);
    first += rows;
  }
}

// The common part: dictionaries, rows, samples. `points`: encodings of a
// sample.
absl::StatusOr<BridgeQuestion> Begin(
    const DirectionQuestion& request, const analysis::SampleDraw& draw,
    const Sources& sources, const Limits& limits, analysis::Operation operation,
    double points = 1, double bytes_per_sample = 0) {
  ASSIGN_OR_RETURN(BridgeQuestion bridge,
                   BeginBridge(request.output_dictionary, request.processing,
                               sources, operation));
  RETURN_IF_ERROR(
      AddBridgeRows(request, /*at_original=*/true, sources, limits, &bridge));
  const dictionary::Manifest& in = sources.dictionary->manifest();
  const dictionary::Manifest& out =
      request.output_dictionary.empty()
          ? in
          : sources.others.at(request.output_dictionary).dictionary->manifest();
  RETURN_IF_ERROR(CheckSamples(request, draw, RowCount(bridge.question),
                               in.d_sae, out.d_sae));
  const double samples =
      draw.count > 0 ? static_cast<double>(draw.count) *
                           static_cast<double>(RowCount(bridge.question))
                     : static_cast<double>(request.rows.size());
  bridge.question.work = {
      .passes = 1,
      .flops_per_row =
          2.0 * static_cast<double>(out.d_out * out.d_sae) *
          (1 +
           points * samples / std::max<double>(1, RowCount(bridge.question)))};
  bridge.question.answer_bytes = (64 + bytes_per_sample) * samples;
  if (draw.count == 0) PlaceSamples(request, &bridge.question);
  return bridge;
}

// A record's first array, with rows counted over all sequences.
Array GlobalRows(const Question& question, const Records& records) {
  std::vector<int32_t> all;
  int32_t first = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const Array& rows = (*records[i])[0];
    const size_t before = all.size();
    all.resize(before + rows.shape[0]);
    std::memcpy(all.data() + before, rows.bytes.data(), rows.bytes.size());
    for (size_t k = before; k < all.size(); ++k) all[k] += first;
    first += static_cast<int32_t>(analysis::RowCount(*question.sequences[i]));
  }
  return Int32Array(all);
}

// Over all records; each one's counts come last.
double SkippedShare(const Records& records) {
  analysis::ScreenCounts counts;
  for (const auto& record : records) {
    counts += analysis::ScreenCounts::FromArray(record->back());
  }
  return counts.SkippedShare();
}

absl::Status CheckGrid(const analysis::SweepOptions& options) {
  if (options.length() < 1 || options.length() > kMaxPoints) {
    return InvalidArgumentError(
        StrCat(options.grid.empty() ? "points is " : "grid's length is ",
               options.length(), "; accepted: 1 to ", kMaxPoints));
  }
  for (size_t i = 0; i < options.grid.size(); ++i) {
    if (!std::isfinite(options.grid[i])) {
      return InvalidArgumentError(
          StrCat("grid[", i, "] is ", options.grid[i], "; accepted: finite"));
    }
  }
  return absl::OkStatus();
}

template <typename Analysis, typename Request>
void Bind(const Request& request, const Sources& sources,
          BridgeQuestion* bridge) {
  bridge->question.bind =
      [place = bridge->place, cache = sources.bridges,
       options = request.options,
       inputs = request.inputs.has_value()](const BoundDictionaries& bound) {
        return std::make_shared<Analysis>(BridgeOf(place, cache, bound),
                                          options, inputs);
      };
}

}  // namespace

absl::StatusOr<Question> AskDirectionAblation(
    const DirectionAblationRequest& request, const Sources& sources,
    const Limits& limits) {
  const analysis::DirectionAblationOptions& options = request.options;
  ASSIGN_OR_RETURN(BridgeQuestion bridge,
                   Begin(request, options.draw, sources, limits,
                         analysis::Operation::kDirectionAblation));
  Question& question = bridge.question;
  question.identity =
      analysis::DirectionAblationAnalysis::Identity(bridge.identity, options);
  Bind<analysis::DirectionAblationAnalysis>(request, sources, &bridge);
  return std::move(bridge.question);
}

DirectionAblationAnswer AnswerDirectionAblation(const Question& question,
                                                Answered answered) {
  const Records& records = answered.records;
  DirectionAblationAnswer answer;
  answer.row = GlobalRows(question, records);
  answer.in_latent = Concatenate(records, 1);
  answer.out_latent = Concatenate(records, 2);
  answer.delta = Concatenate(records, 3);
  answer.before = Concatenate(records, 4);
  answer.after = Concatenate(records, 5);
  answer.jacobian = Concatenate(records, 6);
  answer.kind = Concatenate(records, 7);
  answer.skipped_share = SkippedShare(records);
  LabelRows(question, answer.prompt, answer.position);
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

absl::StatusOr<Question> AskSweep(const SweepRequest& request,
                                  const Sources& sources,
                                  const Limits& limits) {
  const analysis::SweepOptions& options = request.options;
  RETURN_IF_ERROR(CheckGrid(options));
  ASSIGN_OR_RETURN(
      BridgeQuestion bridge,
      Begin(request, options.draw, sources, limits, analysis::Operation::kSweep,
            static_cast<double>(options.length()),
            options.curves ? 4.0 * options.length() : 0.0));
  Question& question = bridge.question;
  if (options.curves) {
    const double samples =
        options.draw.count > 0
            ? static_cast<double>(options.draw.count) * RowCount(question)
            : static_cast<double>(request.rows.size());
    RETURN_IF_ERROR(CheckAnswerBytes(4 * samples * options.length(), limits));
  }
  question.identity =
      analysis::SweepAnalysis::Identity(bridge.identity, options);
  Bind<analysis::SweepAnalysis>(request, sources, &bridge);
  return std::move(bridge.question);
}

SweepAnswer AnswerSweep(const Question& question, Answered answered) {
  const Records& records = answered.records;
  SweepAnswer answer;
  answer.row = GlobalRows(question, records);
  answer.in_latent = Concatenate(records, 1);
  answer.out_latent = Concatenate(records, 2);
  answer.strength = Concatenate(records, 3);
  answer.last = Concatenate(records, 4);
  answer.kind = Concatenate(records, 5);
  answer.slope = Concatenate(records, 6);
  answer.intercept = Concatenate(records, 7);
  answer.zero_first = Concatenate(records, 8);
  answer.zero_last = Concatenate(records, 9);
  answer.curves = Concatenate(records, 10);
  answer.skipped_share = SkippedShare(records);
  LabelRows(question, answer.prompt, answer.position);
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
