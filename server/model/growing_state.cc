#include "server/model/growing_state.h"

#include <algorithm>

namespace cupola::model {

GrowingState::GrowingState(const ModelConfig& config, at::ScalarType dtype,
                           at::Device device, int64_t max_rows,
                           int64_t capacity)
    : max_rows_(max_rows), capacity_(capacity) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (int layer = 0; layer < config.n_layers; ++layer) {
    for (auto* all : {&keys_, &values_}) {
      // Zero, since what a row does not see is multiplied by zero.
      all->push_back(at::zeros(
          {max_rows, config.n_kv_heads, capacity, config.d_head}, options));
    }
  }
}

int64_t GrowingState::RowBytes(const ModelConfig& config, at::ScalarType dtype,
                               int64_t capacity) {
  return 2 * config.n_layers * config.n_kv_heads * config.d_head * capacity *
         static_cast<int64_t>(c10::elementSize(dtype));
}

void GrowingState::Add(const KeptState& kept, int64_t kept_row,
                       int64_t length) {
  const int64_t row = rows();
  lengths_.push_back(length);
  if (length == 0) return;
  for (size_t layer = 0; layer < keys_.size(); ++layer) {
    const auto copy = [&](const at::Tensor& from, const at::Tensor& to) {
      to[row].narrow(1, 0, length).copy_(from[kept_row].narrow(1, 0, length));
    };
    copy(kept.keys[layer], keys_[layer]);
    copy(kept.values[layer], values_[layer]);
  }
}

void GrowingState::Remove(int64_t row) {
  const int64_t last = rows() - 1, length = lengths_.back();
  for (const auto* all : {&keys_, &values_}) {
    if (row == last) break;
    for (const at::Tensor& of_layer : *all) {
      of_layer[row]
          .narrow(1, 0, length)
          .copy_(of_layer[last].narrow(1, 0, length));
    }
  }
  // Nothing of a text that was no numbers may reach the one that comes next:
  // keys behind a row's end are masked, but values are multiplied by 0.
  for (const at::Tensor& values : values_) {
    const int64_t tail = lengths_[row] - length;
    if (tail > 0) values[row].narrow(1, length, tail).zero_();
    values[last].narrow(1, 0, length).zero_();
  }
  lengths_[row] = length;
  lengths_.pop_back();
}

int64_t GrowingState::longest() const {
  return lengths_.empty() ? 0
                          : *std::max_element(lengths_.begin(), lengths_.end());
}

void GrowingState::Write(int layer, const at::Tensor& k, const at::Tensor& v) {
  const bool even =
      std::all_of(lengths_.begin(), lengths_.end(),
                  [&](int64_t length) { return length == lengths_[0]; });
  const auto write = [&](const at::Tensor& from, const at::Tensor& to) {
    const at::Tensor mine = from.transpose(1, 2);  // [rows, kv, 1, d_head]
    if (even) {
      to.narrow(0, 0, rows()).narrow(2, lengths_[0], 1).copy_(mine);
      return;
    }
    for (int64_t row = 0; row < rows(); ++row) {
      to[row].narrow(1, lengths_[row], 1).copy_(mine[row]);
    }
  };
  write(k, keys_[layer]);
  write(v, values_[layer]);
}

at::Tensor GrowingState::Rows(const at::Tensor& all, int64_t positions) const {
  return all.narrow(0, 0, rows()).narrow(2, 0, positions);
}

at::Tensor GrowingState::Keys(int layer, int64_t positions) const {
  return Rows(keys_[layer], positions);
}

at::Tensor GrowingState::Values(int layer, int64_t positions) const {
  return Rows(values_[layer], positions);
}

void GrowingState::Advance() {
  for (int64_t& length : lengths_) ++length;
}

}  // namespace cupola::model
