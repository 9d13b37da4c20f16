#include "server/engine/accumulate_jacobian.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/ask_jacobian.h"
#include "server/engine/part.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::JacobianDivisor;
using analysis::JacobianStatistic;
using analysis::JacobianTotals;
using analysis::JacobianTotalsOptions;
using model::Json;
using storage::DType;

// Of what a specification says; raise it when that changes.
constexpr int kSpecificationVersion = 1;
// Prompts that are validated in one go.
constexpr size_t kValidatedPrompts = 16;
// Tokens of a chunk: of about a tenth of a second, against active latents and
// against all of them.
constexpr int64_t kChunkTokens = 512, kWideChunkTokens = 32;
constexpr int64_t kMaxChunkTokens = 1 << 13, kMaxWideChunkTokens = 256;
// What the passes of a chunk may take in, all tokens before the ones that are
// looked at included; one prompt may take more.
constexpr int64_t kChunkPassTokens = 1 << 14;
constexpr size_t kChunkPrompts = 512;
constexpr int64_t kMaxBins = 1 << 20;
constexpr size_t kMaxThresholds = 1 << 16;
constexpr double kMaxTotalsBytes = 16.0 * (int64_t{1} << 30);

// Tokens of one prompt that a chunk looks at.
struct Piece {
  size_t prompt = 0;
  size_t first = 0, count = 0;  // of the prompt's positions
};

struct Rows {
  std::vector<int32_t> tokens;
  std::vector<int64_t> positions;
};

std::vector<std::vector<Piece>> CutIntoChunks(const std::vector<Rows>& prompts,
                                              int64_t chunk_tokens) {
  std::vector<std::vector<Piece>> chunks;
  int64_t room = 0, passed = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const size_t count = prompts[i].positions.size();
    for (size_t first = 0; first < count;) {
      const int64_t length = static_cast<int64_t>(prompts[i].tokens.size());
      if (room == 0 || passed + length > kChunkPassTokens ||
          chunks.back().size() == kChunkPrompts) {
        chunks.emplace_back();
        room = chunk_tokens;
        passed = 0;
      }
      passed += length;
      const size_t some = std::min<size_t>(room, count - first);
      chunks.back().push_back({i, first, some});
      first += some;
      room -= static_cast<int64_t>(some);
    }
  }
  return chunks;
}

template <typename T>
const T* ValuesOf(const Array& array) {
  return reinterpret_cast<const T*>(array.bytes.data());
}

template <typename T>
Array ToArrayOf(DType dtype, std::vector<int64_t> shape,
                const std::vector<T>& values) {
  Array array{dtype, std::move(shape), {}};
  array.bytes.assign(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
  return array;
}

template <typename T>
Array ToVector(DType dtype, const std::vector<T>& values) {
  return ToArrayOf(dtype, {static_cast<int64_t>(values.size())}, values);
}

class Accumulation : public JobWork {
 public:
  Accumulation(JacobianRequest request, std::vector<Rows> prompts,
               int64_t chunk_tokens, const JacobianTotalsOptions& options,
               const storage::Digest& identity, JacobianAsker asker)
      : request_(std::move(request)),
        prompts_(std::move(prompts)),
        chunks_(CutIntoChunks(prompts_, chunk_tokens)),
        identity_(identity),
        asker_(std::move(asker)),
        totals_(options) {}

  uint32_t version() const override { return JacobianTotals::kVersion; }
  storage::Digest identity() const override { return identity_; }
  int64_t chunks() const override {
    return static_cast<int64_t>(chunks_.size());
  }
  int64_t tokens(int64_t chunk) const override {
    int64_t tokens = 0;
    for (const Piece& piece : chunks_[chunk]) {
      tokens += static_cast<int64_t>(piece.count);
    }
    return tokens;
  }

  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    JacobianRequest request = request_;
    request.prompts.emplace();
    request.positions.kind = Positions::Kind::kPerPrompt;
    for (const Piece& piece : chunks_[chunk]) {
      const Rows& rows = prompts_[piece.prompt];
      const auto first = rows.positions.begin() + piece.first;
      const auto last = first + piece.count;
      request.positions.lists.emplace_back(first, last);
      // Nothing behind the last position has a say.
      const int64_t end = 1 + *std::max_element(first, last);
      request.prompts->prompts.push_back(
          {false, "", {rows.tokens.begin(), rows.tokens.begin() + end}});
    }
    ASSIGN_OR_RETURN(const JacobianAnswer answer, asker_.ask(request, context));
    Add(answer);
    return absl::OkStatus();
  }

  absl::Status Save(storage::StateWriter* state) const override {
    return totals_.Save(state);
  }
  absl::Status Restore(storage::StateReader* state) override {
    return totals_.Restore(state);
  }

  const JacobianTotals& totals() const { return totals_; }

 private:
  void Add(const JacobianAnswer& answer) {
    const int64_t n = answer.out_latents.shape[0];
    const int64_t k_out = answer.out_latents.shape[1];
    const int64_t k_in = answer.in_latents.shape[1];
    const auto* outs = ValuesOf<int32_t>(answer.out_latents);
    const auto* ins = ValuesOf<int32_t>(answer.in_latents);
    const auto* values = ValuesOf<float>(answer.values);
    const auto* indptr = ValuesOf<int64_t>(answer.indptr);
    const auto* indices = ValuesOf<int32_t>(answer.indices);
    const bool sparse = answer.indptr.shape[0] > 0;
    std::vector<JacobianTotals::TokenRow> rows;
    for (int64_t row = 0; row < n * k_out; ++row) {
      if (outs[row] < 0) continue;
      if (sparse) {
        rows.push_back({outs[row], indices + indptr[row], values + indptr[row],
                        indptr[row + 1] - indptr[row], /*ascending=*/true});
      } else {
        rows.push_back({outs[row], ins + row / k_out * k_in,
                        values + row * k_in, k_in, /*ascending=*/false});
      }
    }
    totals_.Add(n, rows);
  }

  const JacobianRequest request_;  // without prompts
  const std::vector<Rows> prompts_;
  const std::vector<std::vector<Piece>> chunks_;
  const storage::Digest identity_;
  const JacobianAsker asker_;
  JacobianTotals totals_;
};

absl::Status CheckRequest(const AccumulateJacobianRequest& request) {
  const analysis::JacobianOptions& options = request.jacobian.options;
  if (!request.jacobian.prompts.has_value()) {
    return absl::InvalidArgumentError(
        "prompts: not set; accepted: at least one prompt");
  }
  if (options.second_order || options.mlp_output || options.gradients) {
    return absl::InvalidArgumentError(
        "jacobian: second_order, mlp_output and gradients are not accumulated");
  }
  if (request.bins < 1 || request.bins > kMaxBins) {
    return absl::InvalidArgumentError(absl::StrCat(
        "histogram_bins is ", request.bins, "; accepted: 1 to ", kMaxBins));
  }
  if (!(request.bins_end > 0) || !std::isfinite(request.bins_end)) {
    return absl::InvalidArgumentError(
        absl::StrCat("histogram_end is ", request.bins_end,
                     "; accepted: a finite number above 0"));
  }
  const int64_t most =
      options.all_inputs ? kMaxWideChunkTokens : kMaxChunkTokens;
  if (request.chunk_tokens < 0 || request.chunk_tokens > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk_tokens is ", request.chunk_tokens,
                     "; accepted: 0 (the server's choice) to ", most));
  }
  return absl::OkStatus();
}

int64_t OutputLatents(const JacobianRequest& request, const Sources& sources) {
  const auto& source =
      request.output_dictionary.empty()
          ? sources.dictionary
          : sources.others.at(request.output_dictionary).dictionary;
  return source->manifest().d_sae;
}

}  // namespace

absl::StatusOr<std::string> SpecifyAccumulation(
    const AccumulateJacobianRequest& request, const JacobianAsker& asker,
    const RequestContext& context) {
  RETURN_IF_ERROR(CheckRequest(request));
  const JacobianRequest& jacobian = request.jacobian;
  ASSIGN_OR_RETURN(const Sources sources, asker.open(jacobian, context));
  const analysis::JacobianOptions& options = jacobian.options;
  const auto& prompts = jacobian.prompts->prompts;
  const auto& lists = jacobian.positions.lists;
  const bool per_prompt =
      jacobian.positions.kind == Positions::Kind::kPerPrompt;
  if (per_prompt && lists.size() != prompts.size()) {
    return absl::InvalidArgumentError(absl::StrCat("positions: ", lists.size(),
                                                   " lists for ",
                                                   prompts.size(), " prompts"));
  }
  Json tokens = Json::array(), positions = Json::array();
  int64_t rows = 0;
  model::Processing processing = model::Processing::kRaw;
  for (size_t begin = 0; begin < prompts.size(); begin += kValidatedPrompts) {
    RETURN_IF_ERROR(StillWanted(context));
    const size_t end = std::min(begin + kValidatedPrompts, prompts.size());
    JacobianRequest some = jacobian;
    // The answers of a chunk are smaller than those of all.
    some.options.all_inputs = false;
    some.options.block = false;
    some.prompts->prompts = {prompts.begin() + begin, prompts.begin() + end};
    if (per_prompt) {
      some.positions.lists = {lists.begin() + begin, lists.begin() + end};
    }
    const absl::StatusOr<Question> asked =
        AskJacobian(some, sources, asker.limits);
    if (!asked.ok()) {
      return begin == 0
                 ? asked.status()
                 : absl::Status(asked.status().code(),
                                absl::StrCat("counted from prompts[", begin,
                                             "]: ", asked.status().message()));
    }
    const Question& question = *asked;
    processing = question.provenance.processing;
    for (const auto& sequence : question.sequences) {
      tokens.push_back(sequence->tokens);
      positions.push_back(sequence->positions);
      rows += static_cast<int64_t>(sequence->positions.size());
    }
  }
  if (rows == 0) {
    return absl::InvalidArgumentError(
        "positions: none of any prompt; accepted: at least one");
  }
  const JacobianTotalsOptions totals{
      OutputLatents(jacobian, sources), sources.dictionary->manifest().d_sae,
      request.float64, request.bins, request.bins_end};
  const double bytes =
      JacobianTotals::Bytes(totals, static_cast<double>(totals.d_out));
  if (bytes > kMaxTotalsBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the totals of ", totals.d_out, " x ", totals.d_in,
                     " pairs of latents may take ", bytes,
                     " bytes; accepted: ", kMaxTotalsBytes));
  }
  const int64_t good = options.all_inputs ? kWideChunkTokens : kChunkTokens;
  return Json{
      {"version", kSpecificationVersion},
      {"dictionary", jacobian.dictionary},
      {"output_dictionary", jacobian.output_dictionary},
      {"folded", processing == model::Processing::kFolded},
      {"mlp_input", static_cast<int>(options.mlp_input)},
      {"mask", static_cast<int>(options.mask)},
      {"all_inputs", options.all_inputs},
      {"min_abs", options.min_abs},
      {"top", options.top},
      {"d_out", totals.d_out},
      {"d_in", totals.d_in},
      {"float64", request.float64},
      {"bins", request.bins},
      {"bins_end", request.bins_end},
      {"chunk_tokens", request.chunk_tokens > 0 ? request.chunk_tokens : good},
      {"tokens", std::move(tokens)},
      {"positions", std::move(positions)}}
      .dump();
}

absl::StatusOr<std::unique_ptr<JobWork>> MakeAccumulation(
    const std::string& specification, const JacobianAsker& asker,
    const RequestContext& context) {
  JacobianRequest request;
  JacobianTotalsOptions totals;
  std::vector<Rows> prompts;
  int64_t chunk_tokens = 0;
  ASSIGN_OR_RETURN(const Json json,
                   model::ParseJson(specification, "the job's specification"));
  try {
    if (json.at("version") != kSpecificationVersion) {
      return absl::FailedPreconditionError(
          "the job was submitted to a server of another version");
    }
    request.dictionary = json.at("dictionary");
    request.output_dictionary = json.at("output_dictionary");
    request.processing = json.at("folded").get<bool>()
                             ? model::Processing::kFolded
                             : model::Processing::kRaw;
    analysis::JacobianOptions& options = request.options;
    options.mlp_input =
        static_cast<analysis::MlpInput>(json.at("mlp_input").get<int>());
    options.mask =
        static_cast<analysis::LatentMask>(json.at("mask").get<int>());
    options.all_inputs = json.at("all_inputs");
    options.min_abs = json.at("min_abs");
    options.top = json.at("top");
    totals = {json.at("d_out"), json.at("d_in"), json.at("float64"),
              json.at("bins"), json.at("bins_end")};
    chunk_tokens = json.at("chunk_tokens");
    const Json& tokens = json.at("tokens");
    for (size_t i = 0; i < tokens.size(); ++i) {
      prompts.push_back({tokens[i], json.at("positions").at(i)});
    }
  } catch (const Json::exception& error) {
    return absl::DataLossError(
        absl::StrCat("the job's specification is damaged: ", error.what()));
  }
  // The question of one token has the digests of all that is asked.
  ASSIGN_OR_RETURN(const Sources sources, asker.open(request, context));
  if (OutputLatents(request, sources) != totals.d_out ||
      sources.dictionary->manifest().d_sae != totals.d_in) {
    return absl::FailedPreconditionError(
        "the job's dictionaries have other sizes now");
  }
  JacobianRequest one = request;
  one.prompts.emplace();
  one.prompts->prompts.push_back({false, "", {prompts.front().tokens.front()}});
  ASSIGN_OR_RETURN(const Question question,
                   AskJacobian(one, sources, asker.limits));
  const storage::Digest identity =
      storage::Hasher("accumulate_jacobian/1")
          .AddDigest(question.identity)
          .AddDigest(question.provenance.model_digest)
          .AddInt(static_cast<int64_t>(question.provenance.dtype))
          .AddBytes(specification)
          .Finish();
  return std::make_unique<Accumulation>(std::move(request), std::move(prompts),
                                        chunk_tokens, totals, identity, asker);
}

absl::StatusOr<JacobianTotalsAnswer> QueryAccumulation(
    const JobWork& work, const JacobianTotalsRequest& request,
    const Limits& limits) {
  const JacobianTotals& totals =
      static_cast<const Accumulation&>(work).totals();
  const JacobianTotalsOptions& options = totals.options();
  if (request.thresholds.size() > kMaxThresholds) {
    return absl::InvalidArgumentError(
        absl::StrCat("thresholds: ", request.thresholds.size(),
                     " of them; accepted: up to ", kMaxThresholds));
  }
  for (double threshold : request.thresholds) {
    if (!(threshold >= 0)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "thresholds: ", threshold, "; accepted: numbers from 0"));
    }
  }
  const auto check = [](const char* field, const std::vector<int64_t>& latents,
                        int64_t below) -> absl::Status {
    for (int64_t latent : latents) {
      if (latent < 0 || latent >= below) {
        return absl::InvalidArgumentError(
            absl::StrCat(field, ": ", latent, "; accepted: 0 to ", below - 1));
      }
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(check("rows", request.rows, options.d_out));
  RETURN_IF_ERROR(check("columns", request.columns, options.d_in));
  if (request.top < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("top is ", request.top, "; accepted: at least 0"));
  }
  RETURN_IF_ERROR(CheckAnswerBytes(
      8.0 * (static_cast<double>(request.rows.size()) * options.d_in +
             static_cast<double>(request.columns.size()) * options.d_out) +
          16.0 * static_cast<double>(request.top),
      limits));

  JacobianTotalsAnswer answer;
  answer.tokens = totals.tokens();
  answer.d_out = options.d_out;
  answer.d_in = options.d_in;
  answer.float64 = options.float64;
  answer.bins_end = options.bins_end;
  const JacobianStatistic statistic = request.statistic;
  const JacobianDivisor divisor = request.divisor;
  answer.above = ToVector(
      DType::kInt64, totals.CountAbove(statistic, divisor, request.thresholds));
  std::vector<int32_t> outs, ins;
  std::vector<double> values;
  for (const auto& entry : totals.Top(statistic, divisor, request.top)) {
    outs.push_back(entry.out);
    ins.push_back(entry.in);
    values.push_back(entry.value);
  }
  answer.top_out = ToVector(DType::kInt32, outs);
  answer.top_in = ToVector(DType::kInt32, ins);
  answer.top_values = ToVector(DType::kFloat64, values);
  const auto lines = [](const std::vector<int64_t>& latents, int64_t width,
                        const auto& line) {
    std::vector<double> all;
    for (int64_t latent : latents) {
      const std::vector<double> one = line(static_cast<int32_t>(latent));
      all.insert(all.end(), one.begin(), one.end());
    }
    return ToArrayOf(DType::kFloat64,
                     {static_cast<int64_t>(latents.size()), width}, all);
  };
  answer.rows = lines(request.rows, options.d_in, [&](int32_t latent) {
    return totals.Row(statistic, divisor, latent);
  });
  answer.columns = lines(request.columns, options.d_out, [&](int32_t latent) {
    return totals.Column(statistic, divisor, latent);
  });
  const std::vector<int64_t> none;
  answer.active =
      ToVector(DType::kInt64, request.active ? totals.active() : none);
  answer.histogram =
      ToVector(DType::kInt64, request.histogram ? totals.histogram() : none);
  return answer;
}

}  // namespace cupola::engine
