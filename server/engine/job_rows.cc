#include "server/engine/job_rows.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/dataset_records.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using model::Json;

// Rows of a dataset that are read at a time.
constexpr int64_t kRowsAtOnce = 1024;

// The positions fit rows of every length there is.
absl::Status CheckPositions(const std::vector<int64_t>& every,
                            const RowSource& source, int64_t first,
                            int64_t count) {
  const auto& lengths = source.lengths();
  const auto begin = lengths.begin() + first;
  const auto shortest = std::min_element(begin, begin + count);
  const int64_t length = *shortest;
  for (int64_t position : every) {
    if (position < -length || position >= length) {
      return absl::InvalidArgumentError(absl::StrCat(
          "positions: ", position, " is outside row ",
          shortest - lengths.begin(), " of the dataset, which has ", length,
          " tokens (", -length, " to ", length - 1, ")"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

JobRows JobRows::OfPrompts(std::vector<std::vector<int32_t>> tokens,
                           std::vector<std::vector<int64_t>> positions) {
  JobRows rows;
  rows.tokens_ = std::move(tokens);
  rows.positions_ = std::move(positions);
  return rows;
}

absl::StatusOr<JobRows> JobRows::OfDataset(const DatasetRows& request,
                                           const Positions& positions,
                                           const std::string& model_name,
                                           const model::ModelSource& model,
                                           Datasets* datasets,
                                           const RequestContext& context) {
  Tokenization how = request.how;
  if (how.model.empty()) how.model = model_name;
  if (how.model != model_name) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows.tokenization.model is \"", how.model,
                     "\", but the dictionary is of \"", model_name,
                     "\"; accepted: that, or none"));
  }
  if (positions.kind == Positions::Kind::kPerPrompt) {
    return absl::InvalidArgumentError(
        "positions: per_prompt beside rows; accepted: every_prompt or none");
  }
  ASSIGN_OR_RETURN(const TokenizedInfo info,
                   datasets->Tokenize(request.dataset, how, model, context));
  if (request.first_row < 0 || request.first_row >= info.rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows.first_row is ", request.first_row,
                     "; accepted: 0 to ", info.rows - 1));
  }
  const int64_t most = info.rows - request.first_row;
  if (request.row_count < 0 || request.row_count > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows.row_count is ", request.row_count,
                     "; accepted: 0 (all) to ", most));
  }
  if (request.skip_positions < 0 || request.skip_positions >= info.longest) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows.skip_positions is ", request.skip_positions,
                     "; accepted: 0 to ", info.longest - 1,
                     ", as rows are at most ", info.longest, " tokens long"));
  }
  JobRows rows;
  rows.of_dataset_ = true;
  rows.dataset_ = request.dataset;
  rows.content_ = info.content;
  rows.digest_ = info.digest;
  rows.first_row_ = request.first_row;
  rows.row_count_ = request.row_count > 0 ? request.row_count : most;
  rows.skip_ = request.skip_positions;
  RETURN_IF_ERROR(rows.Open(datasets));
  if (positions.kind == Positions::Kind::kEveryPrompt) {
    if (rows.skip_ > 0) {
      return absl::InvalidArgumentError(
          "rows.skip_positions is set beside positions; accepted: one of the "
          "two");
    }
    rows.every_ = positions.lists.at(0);
    RETURN_IF_ERROR(CheckPositions(*rows.every_, *rows.source_, rows.first_row_,
                                   rows.row_count_));
    RETURN_IF_ERROR(rows.CheckDistinct());
  }
  int64_t looked_at = 0;
  for (int64_t row = 0; row < rows.rows(); ++row) looked_at += rows.count(row);
  if (looked_at == 0) {
    return absl::InvalidArgumentError(
        "rows: no position of any of them is looked at; accepted: at least "
        "one");
  }
  return rows;
}

absl::Status JobRows::CheckDistinct() const {
  std::set<int64_t> seen;  // lengths
  for (int64_t row = 0; row < rows(); ++row) {
    // All positions from some one on are distinct, and so are `every_`'s in
    // rows of a length that were looked at.
    if (of_dataset_ &&
        (!every_.has_value() || !seen.insert(length(row)).second)) {
      continue;
    }
    std::vector<int64_t> all;
    for (int64_t i = 0; i < count(row); ++i) all.push_back(position(row, i));
    std::sort(all.begin(), all.end());
    const auto twice = std::adjacent_find(all.begin(), all.end());
    if (twice == all.end()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "positions: token ", *twice, " of ", Name(row), ", which has ",
        length(row), " tokens, comes twice; accepted: each token once"));
  }
  return absl::OkStatus();
}

int64_t JobRows::Reach(int64_t row) const {
  if (of_dataset_ && !every_.has_value()) {
    return count(row) > 0 ? length(row) : 0;
  }
  int64_t reach = 0;
  for (int64_t i = 0; i < count(row); ++i) {
    reach = std::max(reach, position(row, i) + 1);
  }
  return reach;
}

std::string JobRows::Name(int64_t row) const {
  return of_dataset_ ? absl::StrCat("row ", first_row_ + row)
                     : absl::StrCat("prompts[", row, "]");
}

absl::Status JobRows::CheckFit(const std::string& model_name,
                               const model::ModelConfig& model, int64_t known,
                               const RequestContext& context) const {
  for (int64_t row = 0; row < rows(); ++row) {
    if (row % kRowsAtOnce == 0) RETURN_IF_ERROR(StillWanted(context));
    const int64_t reach = Reach(row);
    if (reach <= model.n_ctx) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "positions: ", Name(row), " is looked at up to its token ", reach - 1,
        "; the context of \"", model_name, "\" is ", model.n_ctx, " tokens"));
  }
  if (model.d_vocab >= known) return absl::OkStatus();
  std::vector<std::vector<int32_t>> read;
  for (int64_t row = 0; row < rows(); ++row) {
    const int64_t in_batch = row % kRowsAtOnce;
    if (of_dataset_ && in_batch == 0) {
      RETURN_IF_ERROR(StillWanted(context));
      const int64_t end = std::min(row + kRowsAtOnce, rows());
      ASSIGN_OR_RETURN(read, source_->Read(first_row_ + row, first_row_ + end));
    }
    const auto& ids = of_dataset_ ? read[in_batch] : tokens_[row];
    const int64_t reach = Reach(row);
    for (int64_t i = 0; i < reach; ++i) {
      if (ids[i] < model.d_vocab) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(Name(row), ": token id ", ids[i], " at position ", i,
                       " is outside the vocabulary of \"", model_name,
                       "\" (0 to ", model.d_vocab - 1, ")"));
    }
  }
  return absl::OkStatus();
}

Json JobRows::ToJson() const {
  if (!of_dataset_) return {{"tokens", tokens_}, {"positions", positions_}};
  Json json = {{"dataset", dataset_},
               {"content", storage::ToHex(content_)},
               {"digest", storage::ToHex(digest_)},
               {"first_row", first_row_},
               {"row_count", row_count_},
               {"skip", skip_}};
  if (every_.has_value()) json["every"] = *every_;
  return json;
}

JobRows JobRows::FromJson(const Json& json) {
  JobRows rows;
  if (!json.contains("dataset")) {
    rows.tokens_ = json.at("tokens").get<std::vector<std::vector<int32_t>>>();
    rows.positions_ =
        json.at("positions").get<std::vector<std::vector<int64_t>>>();
    rows.positions_.resize(rows.tokens_.size());
    return rows;
  }
  rows.of_dataset_ = true;
  rows.dataset_ = json.at("dataset");
  rows.content_ = DigestFromHex(json.at("content").get<std::string>());
  rows.digest_ = DigestFromHex(json.at("digest").get<std::string>());
  rows.first_row_ = json.at("first_row");
  rows.row_count_ = json.at("row_count");
  rows.skip_ = json.at("skip");
  if (json.contains("every")) {
    rows.every_ = json.at("every").get<std::vector<int64_t>>();
  }
  return rows;
}

absl::Status JobRows::Open(const Datasets* datasets) {
  if (!of_dataset_ || source_ != nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(source_, datasets->Rows(digest_));
  if (first_row_ < 0 || row_count_ < 0 ||
      first_row_ > source_->rows() - row_count_) {
    return absl::DataLossError(
        "the job's specification names more rows than the dataset has");
  }
  return absl::OkStatus();
}

int64_t JobRows::rows() const {
  return of_dataset_ ? row_count_ : static_cast<int64_t>(tokens_.size());
}

int64_t JobRows::length(int64_t row) const {
  return of_dataset_ ? int64_t{source_->lengths()[first_row_ + row]}
                     : static_cast<int64_t>(tokens_[row].size());
}

int64_t JobRows::count(int64_t row) const {
  if (!of_dataset_) return static_cast<int64_t>(positions_[row].size());
  if (every_.has_value()) return static_cast<int64_t>(every_->size());
  return std::max<int64_t>(length(row) - skip_, 0);
}

int64_t JobRows::position(int64_t row, int64_t i) const {
  if (!of_dataset_) return positions_[row][i];
  if (!every_.has_value()) return skip_ + i;
  const int64_t position = (*every_)[i];
  return position < 0 ? position + length(row) : position;
}

absl::Status JobRows::Ask(const std::vector<RowPiece>& pieces, Prompts* prompts,
                          Positions* positions) const {
  positions->kind = Positions::Kind::kPerPrompt;
  // Of a dataset: rows [first, first + size) as they were read last.
  std::vector<std::vector<int32_t>> read;
  int64_t first = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const RowPiece& piece = pieces[i];
    std::vector<int64_t>& list = positions->lists.emplace_back();
    for (int64_t p = 0; p < piece.count; ++p) {
      list.push_back(position(piece.row, piece.first + p));
    }
    const int64_t end = 1 + *std::max_element(list.begin(), list.end());
    if (of_dataset_ &&
        (read.empty() ||
         piece.row >= first + static_cast<int64_t>(read.size()))) {
      first = piece.row;
      const int64_t last = std::min(pieces.back().row + 1, first + kRowsAtOnce);
      ASSIGN_OR_RETURN(read,
                       source_->Read(first_row_ + first, first_row_ + last));
    }
    const std::vector<int32_t>& ids =
        of_dataset_ ? read[piece.row - first] : tokens_[piece.row];
    if (end > static_cast<int64_t>(ids.size())) {
      return absl::DataLossError("the job's rows are damaged");
    }
    prompts->prompts.push_back({false, "", {ids.begin(), ids.begin() + end}});
  }
  return absl::OkStatus();
}

void JobRows::Label(const std::vector<RowPiece>& pieces,
                    const Positions& positions, std::vector<int64_t>* row,
                    std::vector<int32_t>* position) const {
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (const int64_t p : positions.lists[i]) {
      row->push_back(first_row_ + pieces[i].row);
      position->push_back(static_cast<int32_t>(p));
    }
  }
}

storage::Digest JobRows::Identity() const {
  storage::Hasher hasher("job-rows/1");
  hasher.AddDigest(digest_)
      .AddInt(first_row_)
      .AddInt(row_count_)
      .AddInt(skip_)
      .AddInt(every_.has_value());
  if (every_.has_value()) hasher.AddInts(every_->data(), every_->size());
  for (const auto& ids : tokens_) hasher.AddInts(ids.data(), ids.size());
  for (const auto& all : positions_) hasher.AddInts(all.data(), all.size());
  return hasher.Finish();
}

void JobRows::Tell(JobProvenance* provenance) const {
  provenance->dataset = dataset_;
  provenance->dataset_digest = content_;
  provenance->rows_digest = digest_;
}

ChunkPlan::ChunkPlan(const JobRows* rows, const Rules& rules)
    : rows_(rows), rule_(rules.positions) {
  int64_t room = 0, passed = 0, taken = 0;
  for (int64_t row = 0; row < rows->rows(); ++row) {
    const int64_t count = rows->count(row), length = rows->length(row);
    for (int64_t first = 0; first < count;) {
      if (room == 0 || passed + length > rules.pass_tokens ||
          taken == rules.rows) {
        too_many_ = static_cast<int64_t>(starts_.size()) == kMaxChunks;
        if (too_many_) return;
        starts_.push_back({row, first, 0});
        room = rules.positions;
        passed = taken = 0;
      }
      passed += length;
      ++taken;
      const int64_t some = std::min(room, count - first);
      starts_.back().positions += some;
      first += some;
      room -= some;
    }
  }
}

absl::Status ChunkPlan::Check() const {
  if (!too_many_) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "chunk_tokens is ", rule_, ", which makes more than ", kMaxChunks,
      " chunks; accepted: at most so many (raise chunk_tokens, or go over "
      "fewer rows)"));
}

std::vector<RowPiece> ChunkPlan::pieces(int64_t chunk) const {
  const Start& start = starts_[chunk];
  std::vector<RowPiece> pieces;
  int64_t left = start.positions, first = start.first;
  for (int64_t row = start.row; left > 0; ++row, first = 0) {
    const int64_t some = std::min(left, rows_->count(row) - first);
    if (some > 0) pieces.push_back({row, first, some});
    left -= some;
  }
  return pieces;
}

}  // namespace cupola::engine
