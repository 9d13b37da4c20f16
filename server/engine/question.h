#ifndef CUPOLA_SERVER_ENGINE_QUESTION_H_
#define CUPOLA_SERVER_ENGINE_QUESTION_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/analysis.h"
#include "server/analysis/boosts.h"
#include "server/analysis/bridge_cache.h"
#include "server/engine/catalog.h"
#include "server/engine/cost.h"
#include "server/engine/requests.h"
#include "storage/result_cache.h"

namespace cupola::engine {

class MeanStore;

// One record per sequence.
using Records = std::vector<std::shared_ptr<const storage::Record>>;

// A question's dictionaries, loaded. Most questions name at most one, and take
// it for this.
struct BoundDictionaries {
  DictionaryPtr dictionary;           // Question::dictionary, or null
  std::vector<DictionaryPtr> others;  // Question::others, in order
  operator DictionaryPtr() const { return dictionary; }
};

// What every analysis request comes down to, once names are resolved and values
// are checked: the same question about some sequences.
struct Question {
  analysis::Operation operation = analysis::Operation::kFeatures;
  // Everything of the question but the sequences and the model.
  storage::Digest identity{};
  EntriesPtr entries;  // what the names below are names of
  std::string model;
  std::string device;  // the model's
  bool needs_model = true;  // false: the sequences bring inputs
  // Nothing is computed but what files are read for: see device_worker.h.
  bool reads_files = false;
  std::string dictionary;  // entry name; empty: none
  dictionary::Half half = dictionary::Half::kIn;
  int64_t d_sae = 0;  // of the dictionary
  // Dictionaries of a question that takes any number of them, and, of a run,
  // their files' digests.
  std::vector<DictionaryUse> others;
  std::vector<storage::Digest> other_digests;
  // What a record's arrays are, where the request chose them: hook names, and
  // the d_sae of dictionaries.
  std::vector<std::string> labels;
  std::vector<int64_t> columns;
  // Of each label, where an answer tells it: the shape of its values, -1
  // standing for the prompt's tokens.
  std::vector<std::vector<int64_t>> shapes;
  // Of a run whose log-probability boosts are asked for: what is told of them.
  std::optional<analysis::BoostOptions> boosts;
  storage::Digest output_digest{};  // of a bridge's output dictionary
  std::vector<std::shared_ptr<const analysis::Sequence>> sequences;
  // Makes the analysis once the weights are there.
  std::function<std::shared_ptr<const analysis::Analysis>(
      const BoundDictionaries&)>
      bind;
  // By sequence, of an answer that is told while it is made; else none.
  std::vector<analysis::TokenSink> sinks;
  // Called with each sequence's record that the cache had, before anything is
  // computed; may be null.
  std::function<void(size_t sequence, const storage::Record&)> found;
  ModelSourcePtr source;  // the model's, for its tokenizer
  // What it takes, beside the forward pass of one token, PassFlops.
  Work work{.passes = 1};
  double pass_flops = 0;
  // What the records hold together at most, where that is known; where it hangs
  // on how many latents are active, with kManyActive of them.
  double answer_bytes = 0;
  bool answer_is_guessed = false;  // so it does
  // What the records may hold together: how many latents are active, say, is
  // only known when they are there. RESOURCE_EXHAUSTED beyond; 0: anything.
  int64_t max_record_bytes = 0;
  // Whether the answer that is made of the records, one below the other, may
  // hold more than they do: RESOURCE_EXHAUSTED beyond max_bytes. Null: it does
  // not.
  absl::Status (*check_answer)(const Records&, int64_t max_bytes) = nullptr;
  // Filled but for from_cache and seconds.
  Provenance provenance;
};

// More latents than are active on a token of a useful dictionary: what counts
// as the most where the architecture does not say.
inline constexpr int64_t kManyActive = 256;
// `guessed` is set where it does not.
int64_t MostActive(const dictionary::Manifest& manifest, bool* guessed);

// How much of a whole pass it is to the last of these hook points.
double ShareOfPass(const std::vector<model::HookPoint>& hooks,
                   const model::ModelConfig& config);

// Of one of the question's sequences, whatever the cache has of it.
double FlopsOf(const Question& question, const analysis::Sequence& sequence);

struct Answered {
  Records records;
  bool from_cache = false;  // every record was a hit
  StageSeconds seconds;
  // Of a dry run, which has no records.
  std::optional<Estimate> estimate;
};

struct Limits {
  int64_t max_tokens = 0;        // of one request
  int64_t max_answer_bytes = 0;  // RESOURCE_EXHAUSTED beyond
};

// What a request names, opened.
struct Sources {
  EntriesPtr entries;  // the catalog they were found in
  std::string model_name;
  std::string device;  // the model's
  storage::DType dtype = storage::DType::kFloat32;  // the model computes in
  ModelSourcePtr model;
  std::string dictionary_name;  // as the request spells it; empty: none
  DictionarySourcePtr dictionary;
  // By name as the request spells it, of a request with any number of them.
  struct Other {
    std::string model_name;
    DictionarySourcePtr dictionary;
  };
  std::map<std::string, Other> others;
  // Kept between requests, for questions between two dictionaries.
  std::shared_ptr<analysis::BridgeCache> bridges;
  // The means that interventions may name; null: there are none.
  const MeanStore* means = nullptr;
};

// The pieces that operations make their questions and answers of. The functions
// that return a Status name the field and value they refuse.

// A question with who is asked and what is told about it. NOT_FOUND when the
// request names a half of a dictionary that is no pair.
absl::StatusOr<Question> BeginQuestion(const Sources& sources,
                                       analysis::Operation operation);

// What `name` means of a dictionary; NOT_FOUND as above.
absl::StatusOr<DictionaryUse> UseOf(const std::string& name,
                                    const dictionary::Manifest& manifest);

// The prompts' sequences; fills in the token ids and the processing (the
// request's, else the dictionary's, else raw).
absl::Status AddPrompts(const Prompts& prompts, const Positions& positions,
                        const std::optional<model::Processing>& processing,
                        const Sources& sources, const Limits& limits,
                        Question& question);

// The one sequence of a request that brings rows, FLOAT32 [n, width of the
// dictionary's input], instead of prompts.
absl::Status AddInputs(const Array& inputs, const Positions& positions,
                       const std::optional<model::Processing>& processing,
                       const Sources& sources, const Limits& limits,
                       Question& question);

// What a request brings: its inputs, else its prompts. Request: with both as
// optionals, one of them set, and with positions and processing.
template <typename Request>
absl::Status AddInputsOrPrompts(const Request& request, const Sources& sources,
                                const Limits& limits, Question& question) {
  if (request.inputs.has_value()) {
    return AddInputs(*request.inputs, request.positions, request.processing,
                     sources, limits, question);
  }
  return AddPrompts(*request.prompts, request.positions, request.processing,
                    sources, limits, question);
}

// The one sequence of a question that brings neither prompts nor inputs: about
// weights alone, or about what is part of the question itself. `rows`: of the
// answer (see LabelRows).
void AddEmptySequence(int64_t rows, Question& question);

absl::Status CheckAnswerBytes(double bytes, const Limits& limits);
// The same, and notes it as the question's answer_bytes.
absl::Status NoteAnswerBytes(double bytes, const Limits& limits,
                             Question& question);

// Where the dictionary (or the half that is asked) reads and writes. A pair's
// output half does both at the output hook.
std::pair<model::HookPoint, model::HookPoint> HooksOf(const Question& question,
                                                      const Sources& sources);
std::pair<model::HookPoint, model::HookPoint> HooksOf(
    const dictionary::Manifest& manifest, dictionary::Half half);

int64_t RowCount(const Question& question);

// Of the question's check_answer, if it has one.
absl::Status CheckAnswer(const Question& question, const Records& records);

// Which prompt and position each of the answer's rows is: INT32 [rows].
void LabelRows(const Question& question, Array& prompt, Array& position);

Array Int32Array(const std::vector<int32_t>& values);

// The same array of every record, one below the other.
Array Concatenate(const Records& records, size_t which);

// CSR rows one below the other. blocks: of each block its indptr, indices and
// values, at and behind the pointer.
SparseArrays ConcatenateRows(const std::vector<const Array*>& blocks,
                             int64_t columns);

// What the answer tells of itself.
Provenance ProvenanceOf(const Question& question, const Answered& answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_QUESTION_H_
