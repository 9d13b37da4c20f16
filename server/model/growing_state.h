#ifndef CUPOLA_SERVER_MODEL_GROWING_STATE_H_
#define CUPOLA_SERVER_MODEL_GROWING_STATE_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "server/model/kept_state.h"
#include "server/model/model_config.h"

namespace cupola::model {

// Keys and values of rows that grow by one token a pass: what generation keeps
// instead of running a text again for each of its tokens. Room for the longest
// row is there from the start; a pass with ForwardRequest::growing writes its
// keys and values behind those of its rows, in place, and nothing is ever moved
// but the row that takes a removed one's place.
//
//   GrowingState state(model.config(), dtype, device, 2, capacity);
//   state.Add(*kept, 0, 12);     a prompt of 12 tokens, run with keep = {0, {}}
//   state.Add(*kept, 0, 12);     and a second text that begins with it
//   batch = one token for each row; growing = &state   -> logits of these
//
// Owned by who generates; not thread-safe.
class GrowingState {
 public:
  // Room for `max_rows` rows of `capacity` positions.
  GrowingState(const ModelConfig& config, at::ScalarType dtype,
               at::Device device, int64_t max_rows, int64_t capacity);

  // Bytes of one row.
  static int64_t RowBytes(const ModelConfig& config, at::ScalarType dtype,
                          int64_t capacity);

  // Adds a row, the last, that begins with the first `length` positions of row
  // `kept_row` of `kept`, which has every layer; 0: with none, and `kept` is
  // not looked at. REQUIRES: rows() < max_rows(), length <= capacity().
  void Add(const KeptState& kept, int64_t kept_row, int64_t length);
  // The last row takes its place.
  void Remove(int64_t row);

  int64_t rows() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t max_rows() const { return max_rows_; }
  int64_t capacity() const { return capacity_; }
  // Positions of each row so far: its next token's absolute position.
  const std::vector<int64_t>& lengths() const { return lengths_; }
  int64_t longest() const;

  // For the forward pass. k and v of one position a row, after qk-norm and
  // rotary, [rows, 1, n_kv_heads, d_head], go behind the rows' own.
  void Write(int layer, const at::Tensor& k, const at::Tensor& v);
  // [rows, n_kv_heads, positions, d_head], a view; what lies behind a row's
  // length is finite. `positions` <= capacity().
  at::Tensor Keys(int layer, int64_t positions) const;
  at::Tensor Values(int layer, int64_t positions) const;
  // Counts what every layer has written: each row is one position longer.
  void Advance();

 private:
  at::Tensor Rows(const at::Tensor& all, int64_t positions) const;

  int64_t max_rows_ = 0, capacity_ = 0;
  std::vector<int64_t> lengths_;
  // By layer: [max_rows, n_kv_heads, capacity, d_head].
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_GROWING_STATE_H_
