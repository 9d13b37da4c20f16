#ifndef CUPOLA_SERVER_ENGINE_JOB_ROWS_H_
#define CUPOLA_SERVER_ENGINE_JOB_ROWS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/datasets.h"
#include "server/engine/job_info.h"
#include "server/engine/requests.h"
#include "server/model/json.h"
#include "server/model/model_config.h"

namespace cupola::engine {

// Rows of a dataset as a request names them (datasets.proto's DatasetRows).
struct DatasetRows {
  std::string dataset;
  Tokenization how;  // an empty model: the dictionary's
  int64_t first_row = 0, row_count = 0, skip_positions = 0;
};

// Some positions of one row.
struct RowPiece {
  int64_t row = 0;
  int64_t first = 0, count = 0;  // of the row's positions that are looked at
};

// What a job goes over: token rows, and which positions of each are looked at.
// They are prompts, and are then part of the job's specification, or rows of a
// dataset, of which the specification has the digest and nothing is in memory
// but lengths.
class JobRows {
 public:
  // positions: of each row, not negative.
  static JobRows OfPrompts(std::vector<std::vector<int32_t>> tokens,
                           std::vector<std::vector<int64_t>> positions);
  // Makes the rows unless they are there, which may take minutes. `positions`:
  // kAll (but for skip_positions), or kEveryPrompt. `model_name`: the
  // dictionary's, and `model` its files. INVALID_ARGUMENT names the field;
  // NOT_FOUND: no such dataset.
  static absl::StatusOr<JobRows> OfDataset(const DatasetRows& request,
                                           const Positions& positions,
                                           const std::string& model_name,
                                           const model::ModelSource& model,
                                           Datasets* datasets,
                                           const RequestContext& context);

  // INVALID_ARGUMENT: a token is looked at twice, which totals do not take.
  absl::Status CheckDistinct() const;

  // Whether a model beside the one that the rows were made for reads them, as
  // far as they are looked at. `known`: that one's vocabulary; where this one's
  // is smaller, all ids are looked at, which takes as long as to read them.
  // INVALID_ARGUMENT names the model, the row and what it accepts.
  absl::Status CheckFit(const std::string& model_name,
                        const model::ModelConfig& model, int64_t known,
                        const RequestContext& context) const;

  // For a job's specification. FromJson throws Json::exception.
  model::Json ToJson() const;
  static JobRows FromJson(const model::Json& json);

  // Before all that follows. NOT_FOUND: the dataset's rows are not here.
  absl::Status Open(const Datasets* datasets);
  int64_t rows() const;
  int64_t length(int64_t row) const;  // tokens
  int64_t count(int64_t row) const;   // positions looked at
  // Where row 0 stands in the dataset.
  int64_t first_row() const { return first_row_; }
  // The `i`-th position of a row that is looked at.
  int64_t position(int64_t row, int64_t i) const;

  // The pieces, in ascending order, as prompts and positions of a request. A
  // prompt ends at its last position: nothing behind it has a say.
  absl::Status Ask(const std::vector<RowPiece>& pieces, Prompts* prompts,
                   Positions* positions) const;

  // Of each position of such a request, in order: the row (of the dataset, or
  // the prompt's number) and the position in it.
  void Label(const std::vector<RowPiece>& pieces, const Positions& positions,
             std::vector<int64_t>* row, std::vector<int32_t>* position) const;

  // Of the tokens and positions, whatever the dataset is called.
  storage::Digest Identity() const;
  void Tell(JobProvenance* provenance) const;

 private:
  int64_t Reach(int64_t row) const;  // tokens up to the last looked at
  // How messages name a row.
  std::string Name(int64_t row) const;

  // Of prompts.
  std::vector<std::vector<int32_t>> tokens_;
  std::vector<std::vector<int64_t>> positions_;
  // Of a dataset.
  bool of_dataset_ = false;
  std::string dataset_;
  storage::Digest content_{}, digest_{};
  int64_t first_row_ = 0, row_count_ = 0, skip_ = 0;
  // Else all from skip_ on; negative ones count from a row's end.
  std::optional<std::vector<int64_t>> every_;
  std::shared_ptr<const RowSource> source_;
};

// A job's chunks: so many positions each, rows cut where need be, numbered from
// the first row on. It hangs on the rows and rules alone. 24 bytes a chunk, of
// which there are at most kMaxChunks.
class ChunkPlan {
 public:
  static constexpr int64_t kMaxChunks = int64_t{1} << 22;
  struct Rules {
    int64_t positions = 512;
    // What the passes of a chunk may take in, all tokens before the ones that
    // are looked at included; one row may take more.
    int64_t pass_tokens = 1 << 14;
    int64_t rows = 512;
  };
  // `rows`: opened; outlives this.
  ChunkPlan(const JobRows* rows, const Rules& rules);
  // INVALID_ARGUMENT: the rules make more than kMaxChunks, of which the plan
  // has the first.
  absl::Status Check() const;

  int64_t chunks() const { return static_cast<int64_t>(starts_.size()); }
  int64_t positions(int64_t chunk) const { return starts_[chunk].positions; }
  std::vector<RowPiece> pieces(int64_t chunk) const;

 private:
  struct Start {
    int64_t row = 0, first = 0, positions = 0;
  };
  const JobRows* const rows_;
  const int64_t rule_;  // positions of a chunk
  bool too_many_ = false;
  std::vector<Start> starts_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_ROWS_H_
