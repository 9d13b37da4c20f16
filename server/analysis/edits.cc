#include "server/analysis/edits.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/tensor_io.h"
#include "server/dictionary/decoder.h"
#include "server/dictionary/normalization.h"
#include "server/dictionary/weights.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using dictionary::Dictionary;
using dictionary::SparseRows;
using model::HookPoint;

at::Tensor Index(const std::vector<int64_t>& indices, at::Device device) {
  return at::tensor(indices, at::kLong).to(device);
}

// The new values of a part of a point, [positions, ..., width].
at::Tensor Changed(const Intervention& intervention, const RowEdit& edit,
                   const at::Tensor& part, const at::Tensor& source) {
  const auto given = [&] {
    const at::Tensor all =
        ViewOf(intervention.value).to(part.device(), part.scalar_type());
    if (intervention.per_position) {
      return all.index_select(0, Index(edit.value_rows, part.device()));
    }
    const at::Tensor value = all.reshape({-1});
    const int64_t size = value.numel();
    return size == 1 || size == part.size(-1)
               ? value
               : value.view(part.sizes().slice(1));
  };
  switch (intervention.change) {
    case Change::kZero:
      return at::zeros_like(part);
    case Change::kSet:
      return given().expand_as(part);
    case Change::kAdd:
      return part + given() * intervention.factor;
    case Change::kScale:
      return part * intervention.factor;
    case Change::kProjectOut: {
      const at::Tensor direction = given();
      const bool each_head = direction.dim() == 1;
      // One row per thing that the direction is as wide as.
      const at::Tensor rows = each_head ? part : part.flatten(1);
      // Neither very small nor very large directions may leave float32.
      const at::Tensor wide =
          direction.reshape({-1, rows.size(-1)}).to(at::kDouble);
      const at::Tensor unit =
          (wide / wide.norm(2, {1}, /*keepdim=*/true)).to(at::kFloat);
      const at::Tensor along =
          (rows.to(at::kFloat) * unit).sum(-1, /*keepdim=*/true);
      return part - (along * unit).to(part.scalar_type()).view(part.sizes());
    }
    case Change::kPatch:
      return source.to(part.scalar_type());
    default:
      return part;
  }
}

// row: [positions, ...] of one point, changed in place.
void ChangeRow(const Intervention& intervention, const RowEdit& edit,
               at::Tensor row) {
  const at::Tensor positions = Index(edit.positions, row.device());
  const bool heads = !intervention.heads.empty();
  const bool neurons = !intervention.neurons.empty();
  const at::Tensor head_index = Index(intervention.heads, row.device());
  const at::Tensor neuron_index = Index(intervention.neurons, row.device());
  const auto narrow = [&](at::Tensor t) {
    if (heads) t = t.index_select(1, head_index);
    if (neurons) t = t.index_select(-1, neuron_index);
    return t;
  };
  at::Tensor whole = row.index_select(0, positions);
  const at::Tensor source =
      edit.source.defined() ? narrow(edit.source) : at::Tensor();
  at::Tensor part = Changed(intervention, edit, narrow(whole), source);
  if (neurons) {
    at::Tensor wider = heads ? whole.index_select(1, head_index) : whole;
    part = wider.index_copy(-1, neuron_index, part);
  }
  if (heads) part = whole.index_copy(1, head_index, part);
  row.index_copy_(0, positions, part);
}

// The rows' entries one below the other, as the edits of latents make them.
class SparseBuilder {
 public:
  void Add(int32_t latent, float value) {
    indices_.push_back(latent);
    values_.push_back(value);
  }
  void EndRow() { indptr_.push_back(static_cast<int64_t>(indices_.size())); }
  SparseRows Build(int64_t columns) const {
    return {at::tensor(indptr_, at::kLong), at::tensor(indices_, at::kInt),
            at::tensor(values_, at::kFloat), columns};
  }

 private:
  std::vector<int64_t> indptr_ = {0};
  std::vector<int32_t> indices_;
  std::vector<float> values_;
};

// One row of activations.
struct Activations {
  const int32_t* latents;
  const float* values;
  int64_t count;

  float Of(int32_t latent) const {
    const int32_t* found = std::lower_bound(latents, latents + count, latent);
    return found != latents + count && *found == latent
               ? values[found - latents]
               : 0;
  }
};

Activations RowOf(const SparseRows& rows, int64_t row) {
  const int64_t* indptr = rows.indptr.const_data_ptr<int64_t>();
  return {rows.indices.const_data_ptr<int32_t>() + indptr[row],
          rows.values.const_data_ptr<float>() + indptr[row],
          indptr[row + 1] - indptr[row]};
}

bool Rebuilds(const Intervention& intervention) {
  return intervention.on_latents() && intervention.replaces();
}

// What is added to the output (or decoded instead of it): one row of entries.
void AddEntries(const Intervention& intervention, const Activations& active,
                SparseBuilder* builder) {
  const std::vector<int32_t>& latents = intervention.latents;
  if (!Rebuilds(intervention)) {
    for (size_t i = 0; i < latents.size(); ++i) {
      const float wanted = intervention.change == Change::kSubtractLatents
                               ? 0
                               : intervention.values[i];
      const float change = wanted - active.Of(latents[i]);
      if (change != 0) builder->Add(latents[i], change);
    }
    return;
  }
  for (int64_t i = 0; i < active.count; ++i) {
    if (!std::binary_search(latents.begin(), latents.end(),
                            active.latents[i])) {
      builder->Add(active.latents[i], active.values[i]);
    }
  }
  for (size_t i = 0; i < latents.size(); ++i) {
    if (intervention.values[i] != 0) {
      builder->Add(latents[i], intervention.values[i]);
    }
  }
}

}  // namespace

std::vector<RowEdit> EditsWithin(const std::vector<RowEdit>& edits,
                                 int64_t first, int64_t last) {
  std::vector<RowEdit> within;
  for (const RowEdit& edit : edits) {
    RowEdit mine{edit.intervention, {}, edit.source, {}};
    std::vector<int64_t> kept;
    for (size_t i = 0; i < edit.positions.size(); ++i) {
      if (edit.positions[i] < first || edit.positions[i] > last) continue;
      mine.positions.push_back(edit.positions[i] - first);
      if (!edit.value_rows.empty()) {
        mine.value_rows.push_back(edit.value_rows[i]);
      }
      kept.push_back(static_cast<int64_t>(i));
    }
    if (kept.empty()) continue;
    if (edit.source.defined() && kept.size() < edit.positions.size()) {
      mine.source =
          edit.source.index_select(0, Index(kept, edit.source.device()));
    }
    within.push_back(std::move(mine));
  }
  return within;
}

at::Tensor Contribution(const Dictionary& dictionary,
                        const SparseRows& features, const at::Tensor& x) {
  const dictionary::Manifest& manifest = dictionary.manifest();
  const at::Tensor sum = dictionary::DecodeSparse(
      features, dictionary.weights().W_dec, at::Tensor());
  if (manifest.kind == dictionary::Kind::kTranscoder ||
      !dictionary::DenormalizeNeedsInput(manifest.normalize)) {
    return sum;
  }
  // The way back is affine in the reconstruction: its constant part cancels.
  return dictionary::DenormalizeOutput(manifest.normalize, x, sum) -
         dictionary::DenormalizeOutput(manifest.normalize, x,
                                       at::zeros_like(sum));
}

Edits::Edits(const Dictionaries& dictionaries,
             const std::vector<std::vector<RowEdit>>& rows)
    : dictionaries_(dictionaries), rows_(rows) {
  for (const auto& row : rows_) {
    for (const RowEdit& edit : row) {
      const Intervention& intervention = *edit.intervention;
      points_.insert(intervention.hook);
      if (intervention.on_latents() &&
          intervention.hook_in != intervention.hook) {
        points_.insert(intervention.hook_in);
        inputs_.insert(intervention.hook_in);
      }
    }
  }
}

absl::Status Edits::Apply(const HookPoint& point, at::Tensor* value) {
  // [batch, positions, ...] also where a row is [heads, queries, keys].
  at::Tensor by_position = IsSquare(point) ? value->transpose(1, 2) : *value;
  // The rows' first edits of this point, then their second ones, ...
  std::vector<std::vector<const RowEdit*>> mine(rows_.size());
  size_t most = 0;
  for (size_t i = 0; i < rows_.size(); ++i) {
    for (const RowEdit& edit : rows_[i]) {
      if (edit.intervention->hook == point) mine[i].push_back(&edit);
    }
    most = std::max(most, mine[i].size());
  }
  for (size_t turn = 0; turn < most; ++turn) {
    std::map<int, std::vector<PlacedEdit>> latents;
    std::vector<PlacedEdit> sums;
    for (size_t i = 0; i < rows_.size(); ++i) {
      if (turn >= mine[i].size() || mine[i][turn]->positions.empty()) continue;
      const RowEdit& edit = *mine[i][turn];
      if (edit.intervention->on_latents()) {
        latents[edit.intervention->dictionary].push_back(
            {static_cast<int64_t>(i), &edit});
      } else if (edit.intervention->change == Change::kAdd &&
                 edit.source.defined()) {
        sums.push_back({static_cast<int64_t>(i), &edit});
      } else {
        ChangeRow(*edit.intervention, edit,
                  by_position.select(0, static_cast<int64_t>(i)));
      }
    }
    if (!sums.empty()) AddSources(sums, &by_position);
    for (const auto& [dictionary, edits] : latents) {
      RETURN_IF_ERROR(ApplyLatents(dictionary, edits, value));
    }
  }
  if (inputs_.count(point) != 0) seen_[point] = value->clone();
  return absl::OkStatus();
}

void Edits::AddSources(const std::vector<PlacedEdit>& edits,
                       at::Tensor* value) {
  std::vector<int64_t> index;
  std::vector<at::Tensor> sources;
  for (const PlacedEdit& edit : edits) {
    for (int64_t position : edit.edit->positions) {
      index.push_back(edit.row * value->size(1) + position);
    }
    sources.push_back(edit.edit->source);
  }
  value->flatten(0, 1).index_add_(0, Index(index, value->device()),
                                  at::cat(sources).to(value->scalar_type()));
}

absl::Status Edits::ApplyLatents(int which,
                                 const std::vector<PlacedEdit>& edits,
                                 at::Tensor* value) {
  const Dictionary& dictionary = *dictionaries_[which];
  const Intervention& any = *edits.front().edit->intervention;
  const at::Tensor input =
      any.hook_in == any.hook ? *value : seen_.at(any.hook_in);
  // Rows of the flat tensors: [batch * positions, width].
  const int64_t positions = value->size(1);
  std::vector<int64_t> index;
  dictionary::EncodeOptions options;
  bool all_latents = false;
  for (const PlacedEdit& edit : edits) {
    for (int64_t position : edit.edit->positions) {
      index.push_back(edit.row * positions + position);
    }
    const Intervention& intervention = *edit.edit->intervention;
    all_latents |= Rebuilds(intervention);
    options.latents.insert(options.latents.end(), intervention.latents.begin(),
                           intervention.latents.end());
  }
  std::sort(options.latents.begin(), options.latents.end());
  options.latents.erase(
      std::unique(options.latents.begin(), options.latents.end()),
      options.latents.end());
  if (all_latents) options.latents.clear();

  const auto flat = [&](const at::Tensor& t) {
    return t.reshape({t.size(0) * positions, -1});
  };
  const at::Tensor rows = Index(index, value->device());
  const at::Tensor x = flat(input).index_select(0, rows).to(at::kFloat);
  at::Tensor y = flat(*value).index_select(0, rows).to(at::kFloat);
  ASSIGN_OR_RETURN(const SparseRows active, dictionary.Encode(x, options));

  SparseBuilder changes, rebuilt;
  std::vector<int64_t> changed_rows, rebuilt_rows;
  int64_t row = 0;
  for (const PlacedEdit& edit : edits) {
    const bool rebuild = Rebuilds(*edit.edit->intervention);
    SparseBuilder& builder = rebuild ? rebuilt : changes;
    for (size_t i = 0; i < edit.edit->positions.size(); ++i, ++row) {
      AddEntries(*edit.edit->intervention, RowOf(active, row), &builder);
      builder.EndRow();
      (rebuild ? rebuilt_rows : changed_rows).push_back(row);
    }
  }
  if (!changed_rows.empty()) {
    const at::Tensor at_rows = Index(changed_rows, x.device());
    y.index_add_(0, at_rows,
                 Contribution(dictionary, changes.Build(dictionary.d_sae()),
                              x.index_select(0, at_rows)));
  }
  if (!rebuilt_rows.empty()) {
    const at::Tensor at_rows = Index(rebuilt_rows, x.device());
    ASSIGN_OR_RETURN(const at::Tensor reconstruction,
                     dictionary.Decode(rebuilt.Build(dictionary.d_sae()),
                                       x.index_select(0, at_rows)));
    y.index_copy_(0, at_rows, reconstruction);
  }
  at::Tensor all = flat(*value);
  all.index_copy_(0, rows, y.to(all.scalar_type()));
  *value = all.view(value->sizes());
  return absl::OkStatus();
}

}  // namespace cupola::analysis
