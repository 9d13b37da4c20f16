#include "server/analysis/ablation_records.h"

#include "server/analysis/tensor_io.h"

namespace cupola::analysis {
namespace {

using storage::Array;
using storage::DType;

at::Tensor Index(const std::vector<int64_t>& indices) {
  return at::tensor(indices, at::kLong);
}

// One prompt's rows. A row of the output is a clean one (of a place) or a
// changed one (of an ablation): sources below the places' number are clean.
class RecordMaker {
 public:
  RecordMaker(const AblationFindings& findings, const AblateOptions& options,
              int64_t prompt, int64_t tokens)
      : findings_(findings), options_(options), tokens_(tokens) {
    const auto& places = findings.places;
    while (first_ < places.size() && places[first_].prompt < prompt) ++first_;
    end_ = first_;
    while (end_ < places.size() && places[end_].prompt == prompt) ++end_;
  }

  std::vector<Array> Make() {
    for (size_t place = first_; place < end_; ++place) AddPlace(place);
    std::vector<Array> record = {
        ToArray(at::tensor(latents_, at::kInt), DType::kUInt32),
        ToArray(at::tensor(positions_, at::kInt), DType::kInt32),
        ToArray(at::tensor(places_, at::kInt), DType::kInt32),
        ToArray(at::tensor(activations_, at::kFloat), DType::kFloat32)};
    const int64_t places = static_cast<int64_t>(end_ - first_);
    AddReadout(rows_, {}, &record);
    AddReadout(bases_, {places, Bases()}, &record);
    if (options_.later) {
      AddLosses(rows_, {}, &record);
      AddLosses(bases_, {places, Bases()}, &record);
    }
    return record;
  }

 private:
  // A clean row of a place, or the row of an ablation.
  struct Source {
    size_t place = 0;
    int64_t ablation = -1;  // -1: the clean one
  };

  int64_t Bases() const {
    return options_.mode == AblateMode::kReconstruct ? 2 : 1;
  }

  // Its latents; one that is not active has the row of the base it equals.
  void AddPlace(size_t index) {
    const auto& place = findings_.places[index];
    const size_t end = index + 1 < findings_.places.size()
                           ? findings_.places[index + 1].begin
                           : findings_.ablations.size();
    size_t next = place.begin;
    Source base{index, -1};
    bases_.push_back(base);
    if (Bases() == 2) {
      base.ablation = static_cast<int64_t>(next++);
      bases_.push_back(base);
    }
    const auto add = [&](int32_t latent) {
      latents_.push_back(latent);
      positions_.push_back(
          options_.together ? -1 : static_cast<int32_t>(place.positions[0]));
      places_.push_back(static_cast<int32_t>(index - first_));
      if (next < end && findings_.ablations[next].latent == latent) {
        activations_.push_back(findings_.ablations[next].activation);
        rows_.push_back({index, static_cast<int64_t>(next++)});
      } else {
        activations_.push_back(0);
        rows_.push_back(base);
      }
    };
    for (int64_t latent : *place.asked) add(static_cast<int32_t>(latent));
    if (!place.asked->empty()) return;
    while (next < end) add(findings_.ablations[next].latent);
  }

  // The sources' rows of a clean and of a changed tensor. `clean_row` maps
  // their places.
  template <typename CleanRow>
  static at::Tensor Gather(const std::vector<Source>& sources,
                           const at::Tensor& clean, const at::Tensor& changed,
                           CleanRow clean_row) {
    at::Tensor out = at::empty(
        {static_cast<int64_t>(sources.size()), clean.size(1)}, clean.options());
    std::vector<int64_t> to[2], from[2];
    for (size_t i = 0; i < sources.size(); ++i) {
      const bool is_changed = sources[i].ablation >= 0;
      to[is_changed].push_back(static_cast<int64_t>(i));
      from[is_changed].push_back(is_changed ? sources[i].ablation
                                            : clean_row(sources[i].place));
    }
    for (int which : {0, 1}) {
      if (to[which].empty()) continue;
      const at::Tensor& all = which == 0 ? clean : changed;
      out.index_copy_(0, Index(to[which]),
                      all.index_select(0, Index(from[which])));
    }
    return out;
  }

  at::Tensor Losses(const std::vector<Source>& sources) const {
    return Gather(
               sources, findings_.clean_losses, findings_.changed_losses,
               [this](size_t place) { return findings_.places[place].prompt; })
        .narrow(1, 0, tokens_ - 1);
  }

  // The mean of a row's losses from `from(place)` on.
  template <typename From>
  at::Tensor MeanLosses(const std::vector<Source>& sources,
                        const at::Tensor& losses, From from) const {
    at::Tensor means = at::empty({losses.size(0)}, at::kFloat);
    float* out = means.mutable_data_ptr<float>();
    const at::Tensor rows = losses.contiguous();
    const float* in = rows.const_data_ptr<float>();
    const int64_t width = losses.size(1);
    for (size_t i = 0; i < sources.size(); ++i) {
      double sum = 0;
      const int64_t begin = from(findings_.places[sources[i].place]);
      for (int64_t t = begin; t < width; ++t) sum += in[i * width + t];
      out[i] = static_cast<float>(sum / static_cast<double>(width - begin));
    }
    return means;
  }

  // `shape` replaces the rows, where it is not empty.
  static Array Shaped(const at::Tensor& tensor, std::vector<int64_t> shape,
                      DType dtype) {
    if (shape.empty()) return ToArray(tensor, dtype);
    for (int64_t dim = 1; dim < tensor.dim(); ++dim) {
      shape.push_back(tensor.size(dim));
    }
    return ToArray(tensor.reshape(shape), dtype);
  }

  void AddReadout(const std::vector<Source>& sources,
                  const std::vector<int64_t>& shape,
                  std::vector<Array>* record) const {
    const auto place_row = [](size_t place) {
      return static_cast<int64_t>(place);
    };
    const at::Tensor logprob = Gather(sources, findings_.clean.logprob,
                                      findings_.changed.logprob, place_row);
    const at::Tensor rank = Gather(sources, findings_.clean.rank,
                                   findings_.changed.rank, place_row);
    const at::Tensor loss =
        options_.together
            ? MeanLosses(sources, Losses(sources),
                         [](const AblationFindings::Place&) { return 0; })
            : logprob.select(1, 0).neg();
    const int64_t skip = options_.answers > 0 ? 1 : 0;
    const int64_t width = logprob.size(1) - skip;
    record->push_back(Shaped(loss, shape, DType::kFloat32));
    record->push_back(
        Shaped(logprob.narrow(1, skip, width), shape, DType::kFloat32));
    record->push_back(
        Shaped(rank.narrow(1, skip, width), shape, DType::kInt32));
  }

  void AddLosses(const std::vector<Source>& sources,
                 const std::vector<int64_t>& shape,
                 std::vector<Array>* record) const {
    const at::Tensor losses = Losses(sources);
    const at::Tensor means =
        MeanLosses(sources, losses, [](const AblationFindings::Place& place) {
          return place.positions.front();
        });
    record->push_back(Shaped(means, shape, DType::kFloat32));
    record->push_back(Shaped(losses, shape, DType::kFloat32));
  }

  const AblationFindings& findings_;
  const AblateOptions& options_;
  const int64_t tokens_;
  size_t first_ = 0, end_ = 0;  // the prompt's places
  std::vector<int32_t> latents_, positions_, places_;
  std::vector<float> activations_;
  std::vector<Source> rows_, bases_;
};

}  // namespace

std::vector<Array> RecordOf(const AblationFindings& findings,
                            const AblateOptions& options, int64_t prompt,
                            int64_t tokens) {
  return RecordMaker(findings, options, prompt, tokens).Make();
}

}  // namespace cupola::analysis
