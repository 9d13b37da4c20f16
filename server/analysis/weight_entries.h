#ifndef CUPOLA_SERVER_ANALYSIS_WEIGHT_ENTRIES_H_
#define CUPOLA_SERVER_ANALYSIS_WEIGHT_ENTRIES_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/dictionary/dictionary.h"
#include "server/model/model.h"
#include "server/model/named_weights.h"

namespace cupola::analysis {

// The entries of a tensor: rows of its first axis and columns of its last, in
// the order given; empty: all. REQUIRES: indices inside the shape.
struct EntrySelection {
  std::vector<int64_t> rows, columns;

  // The selected entries' shape.
  std::vector<int64_t> ShapeOf(std::vector<int64_t> shape) const;
};

// A model's named weight (model/named_weights.h), read from its files. The one
// sequence is empty.
//
// Record: values FLOAT32 [rows, ..., columns]; the whole tensor's shape INT64
// [axes].
class ModelWeightAnalysis : public Analysis {
 public:
  ModelWeightAnalysis(std::shared_ptr<const model::ModelSource> source,
                      model::Processing processing, at::ScalarType dtype,
                      model::NamedWeight weight, EntrySelection selection);
  static storage::Digest Identity(const storage::Digest& model,
                                  model::Processing processing,
                                  at::ScalarType dtype,
                                  const model::NamedWeight& weight,
                                  const EntrySelection& selection);

  std::set<model::HookPoint> captures() const override { return {}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const model::ModelSource> source_;
  const model::Processing processing_;
  const at::ScalarType dtype_;
  const model::NamedWeight weight_;
  const EntrySelection selection_;
};

// The same of a dictionary's named tensor (dictionary/named_tensors.h).
class DictionaryTensorAnalysis : public Analysis {
 public:
  DictionaryTensorAnalysis(
      std::shared_ptr<const dictionary::Dictionary> dictionary,
      std::string name, EntrySelection selection);
  // `content`: of what the tensor is read from.
  static storage::Digest Identity(const storage::Digest& content,
                                  dictionary::Half half,
                                  const std::string& name,
                                  const EntrySelection& selection);

  std::set<model::HookPoint> captures() const override { return {}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const std::string name_;
  const EntrySelection selection_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_WEIGHT_ENTRIES_H_
