#include "server/model/split_matrix.h"

#include <algorithm>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/base/casts.h"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define CUPOLA_TILES 1
#endif

namespace cupola::model {

#ifdef CUPOLA_TILES

namespace {

#define CUPOLA_TILE_CODE \
  __attribute__((        \
      target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512bf16")))

constexpr int64_t kTile = 16;   // outputs, and input rows, of a tile
constexpr int64_t kBlock = 32;  // rows, outputs and inputs of a step
constexpr int64_t kTileValues = kTile * kBlock;  // bfloat16 values of a tile
constexpr int64_t kTileBytes = kTileValues * 2;
// Input rows that stay in a core's second-level cache while panels of the
// weight go by, and the panels' parts beside them.
constexpr int64_t kRowsBytes = int64_t{1} << 20;
constexpr int64_t kPanelsBytes = int64_t{1} << 19;
// Panels whose blocks are written out together.
constexpr int64_t kMaxPanels = 4;
// Up to so many rows are not worth splitting the weight for.
constexpr int kFewRows = 4;
// Answers above this leave the second-level cache before anyone reads them.
constexpr uint64_t kStreamedBytes = uint64_t{1} << 22;

int64_t DivideUp(int64_t n, int64_t by) { return (n + by - 1) / by; }
int64_t Blocks(int64_t n) { return DivideUp(n, kBlock); }

// What a core's tile registers look like: eight of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// The tile registers, for as long as it lives. Others on the same thread
// (oneDNN) load their own configuration before they use them.
class TileRegisters {
 public:
  TileRegisters() {
    // Not the intrinsic: GCC 12's tells the compiler of 8 of the 64 bytes only.
    static const TileConfig config;
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  ~TileRegisters() { asm volatile("tilerelease"); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

CUPOLA_TILE_CODE inline __m512 Widen(__m256i half) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// The float32 whose upper half, rounded, and what is left of its bits are
// given.
CUPOLA_TILE_CODE inline __m512 Join(__m512 upper, __m256i rest) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(upper),
                                              _mm512_cvtepi16_epi32(rest)));
}

CUPOLA_TILE_CODE inline __m256i LowHalf(__m512i line) {
  return _mm512_castsi512_si256(line);
}
CUPOLA_TILE_CODE inline __m256i HighHalf(__m512i line) {
  return _mm512_extracti64x4_epi64(line, 1);
}

CUPOLA_TILE_CODE inline float Sum(__m512 v) {
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e));
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
  v = _mm512_add_ps(v, _mm512_shuffle_ps(v, v, 0x4e));
  v = _mm512_add_ps(v, _mm512_shuffle_ps(v, v, 0xb1));
  return _mm512_cvtss_f32(v);
}

// 32 inputs of one output: two vectors.
struct Inputs {
  __m512 first, second;
};
CUPOLA_TILE_CODE inline Inputs LoadInputs(const uint16_t* upper,
                                          const int16_t* rest) {
  const __m512i high = _mm512_load_si512(upper), low = _mm512_load_si512(rest);
  return {Join(Widen(LowHalf(high)), LowHalf(low)),
          Join(Widen(HighHalf(high)), HighHalf(low))};
}

// rows[i] lane j <-> rows[j] lane i.
CUPOLA_TILE_CODE inline void Transpose(__m512 rows[kTile]) {
  __m512 t[kTile];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(t[i + j]);
      const __m512d b = _mm512_castps_pd(t[i + j + 2]);
      rows[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      rows[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  // rows[4 g + c] holds, of each 128-bit lane l, column 4 l + c of rows 4 g ...
  // 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(rows[c], rows[4 + c], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(rows[c], rows[4 + c], 0xdd);
    const __m512 d = _mm512_shuffle_f32x4(rows[8 + c], rows[12 + c], 0x88);
    const __m512 e = _mm512_shuffle_f32x4(rows[8 + c], rows[12 + c], 0xdd);
    t[c] = _mm512_shuffle_f32x4(a, d, 0x88);
    t[8 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
    t[4 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
    t[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
  }
  for (int i = 0; i < 16; ++i) rows[i] = t[i];
}

// Input rows [rows <= 32, in] as tiles: for each 32 inputs the first parts of
// rows 0-15 and 16-31, then the second parts, and so on. A tile's row holds a
// pair of inputs of each input row, side by side in 32 bits.
template <int kParts>
CUPOLA_TILE_CODE void SplitRows(const float* x, int64_t rows, int64_t in,
                                char* tiles) {
  for (int64_t step = 0; step < Blocks(in); ++step) {
    const int64_t left = std::min(kBlock, in - step * kBlock);
    const auto mask = [left](int64_t from) {
      const int64_t count = std::clamp<int64_t>(left - from, 0, 16);
      return static_cast<__mmask16>((1u << count) - 1);
    };
    const __mmask16 first_mask = mask(0), second_mask = mask(16);
    for (int64_t tile = 0; tile < 2; ++tile) {
      __m512 parts[kParts][kTile];
      for (int64_t r = 0; r < kTile; ++r) {
        const int64_t row = tile * kTile + r;
        const bool real = row < rows;
        const float* in_row = x + row * in + step * kBlock;
        __m512 first = _mm512_maskz_loadu_ps(real ? first_mask : 0, in_row);
        __m512 second =
            _mm512_maskz_loadu_ps(real ? second_mask : 0, in_row + 16);
        for (int part = 0; part < kParts; ++part) {
          const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(second, first);
          parts[part][r] = _mm512_castsi512_ps(rounded);
          first = _mm512_sub_ps(first, Widen(LowHalf(rounded)));
          second = _mm512_sub_ps(second, Widen(HighHalf(rounded)));
        }
      }
      for (int part = 0; part < kParts; ++part) {
        Transpose(parts[part]);
        char* out = tiles + (part * 2 + tile) * kTileBytes;
        for (int64_t r = 0; r < kTile; ++r) {
          _mm512_store_ps(out + r * 64, parts[part][r]);
        }
      }
    }
    tiles += kParts * 2 * kTileBytes;
  }
}

// What the first parts leave of 16 outputs, as tiles: for each step the second
// parts, then the third ones.
template <int kParts>
CUPOLA_TILE_CODE void SplitRests(const uint16_t* upper, const int16_t* rest,
                                 int64_t steps, char* tiles) {
  for (int64_t line = 0; line < steps * kTile; ++line) {
    _mm_prefetch(upper + 4 * kTileValues, _MM_HINT_T0);
    _mm_prefetch(rest + 4 * kTileValues, _MM_HINT_T0);
    const __m512i high = _mm512_load_si512(upper);
    const Inputs inputs = LoadInputs(upper, rest);
    __m512 first = _mm512_sub_ps(inputs.first, Widen(LowHalf(high)));
    __m512 second = _mm512_sub_ps(inputs.second, Widen(HighHalf(high)));
    char* out =
        tiles + line / kTile * (kParts - 1) * kTileBytes + line % kTile * 64;
    for (int part = 1; part < kParts; ++part, out += kTileBytes) {
      const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(second, first);
      _mm512_store_si512(out, rounded);
      first = _mm512_sub_ps(first, Widen(LowHalf(rounded)));
      second = _mm512_sub_ps(second, Widen(HighHalf(rounded)));
    }
    upper += kBlock;
    rest += kBlock;
  }
}

// 32 outputs: the first parts as they are held, and where SplitRests put the
// others, of outputs 0-15 and 16-31.
struct Panel {
  const uint16_t* upper[2];
  const char* rests[2];
};

// Tiles 0-3 hold the block's sums; 4 and 5 a part of the rows (0-15, 16-31), 6
// and 7 a part of the panel. Each product of tiles is 8,192 multiplications in
// 16 cycles.
template <bool kHalf>
CUPOLA_TILE_CODE inline void LoadRows(const char* rows, int part) {
  _tile_loadd(4, rows + part * 2 * kTileBytes, 64);
  if (!kHalf) _tile_loadd(5, rows + part * 2 * kTileBytes + kTileBytes, 64);
}

template <int kParts>
CUPOLA_TILE_CODE inline void LoadPanel(const Panel& panel, int64_t step,
                                       int part) {
  if (part == 0) {
    _tile_loadd(6, panel.upper[0] + step * kTileValues, 64);
    _tile_loadd(7, panel.upper[1] + step * kTileValues, 64);
    return;
  }
  const int64_t at = (step * (kParts - 1) + part - 1) * kTileBytes;
  _tile_loadd(6, panel.rests[0] + at, 64);
  _tile_loadd(7, panel.rests[1] + at, 64);
}

template <bool kHalf>
CUPOLA_TILE_CODE inline void AddProducts() {
  _tile_dpbf16ps(0, 6, 4);
  _tile_dpbf16ps(2, 7, 4);
  if (!kHalf) {
    _tile_dpbf16ps(1, 6, 5);
    _tile_dpbf16ps(3, 7, 5);
  }
}

// block [32 outputs, 32 rows] = panel x rows over `steps` steps; with kHalf
// only the first 16 rows. The products come in the order that loads the fewest
// tiles.
template <int kParts, bool kHalf>
CUPOLA_TILE_CODE void MultiplyBlock(const char* rows, const Panel& panel,
                                    int64_t steps, float* block) {
  _tile_zero(0);
  _tile_zero(2);
  if (!kHalf) {
    _tile_zero(1);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; ++s) {
    LoadPanel<kParts>(panel, s, 0);
    if (kParts == 3) {
      LoadRows<kHalf>(rows, 2);
      AddProducts<kHalf>();  // x3 w1
    }
    if (kParts > 1) {
      LoadRows<kHalf>(rows, 1);
      AddProducts<kHalf>();  // x2 w1
    }
    if (kParts == 3) {
      LoadPanel<kParts>(panel, s, 1);
      AddProducts<kHalf>();  // x2 w2
      LoadRows<kHalf>(rows, 0);
      AddProducts<kHalf>();  // x1 w2
      LoadPanel<kParts>(panel, s, 2);
      AddProducts<kHalf>();  // x1 w3
      LoadPanel<kParts>(panel, s, 0);
      AddProducts<kHalf>();  // x1 w1
    } else {
      LoadRows<kHalf>(rows, 0);
      AddProducts<kHalf>();  // x1 w1
      if (kParts == 2) {
        LoadPanel<kParts>(panel, s, 1);
        AddProducts<kHalf>();  // x1 w2
      }
    }
    rows += kParts * 2 * kTileBytes;
  }
  constexpr int64_t kStride = kBlock * sizeof(float);
  _tile_stored(0, block, kStride);
  _tile_stored(2, block + kTile * kBlock, kStride);
  if (!kHalf) {
    _tile_stored(1, block + kTile, kStride);
    _tile_stored(3, block + kTile * kBlock + kTile, kStride);
  }
}

// Writes `rows` rows of a group of blocks, `columns` values each, plus bias, to
// y. `stream`: past the caches, for answers that they would not hold anyway:
// then a line is not read before it is written.
CUPOLA_TILE_CODE void StoreBlocks(const float* blocks, int64_t rows,
                                  int64_t columns, const float* bias, float* y,
                                  int64_t stride, bool stream) {
  stream = stream && columns % kTile == 0 && stride % kTile == 0;
  for (int64_t top = 0; top < rows; top += kTile) {
    const int64_t height = std::min(kTile, rows - top);
    for (int64_t c = 0; c < columns; c += kTile) {
      const int64_t count = std::min(kTile, columns - c);
      const auto mask = static_cast<__mmask16>((1u << count) - 1);
      __m512 values[kTile];
      for (int64_t i = 0; i < kTile; ++i) {
        values[i] = _mm512_load_ps(blocks + (c + i) * kBlock + top);
      }
      Transpose(values);
      const __m512 added = bias != nullptr
                               ? _mm512_maskz_loadu_ps(mask, bias + c)
                               : _mm512_setzero_ps();
      float* out = y + top * stride + c;
      for (int64_t r = 0; r < height; ++r, out += stride) {
        const __m512 value = _mm512_add_ps(values[r], added);
        if (stream) {
          _mm512_stream_ps(out, value);
        } else {
          _mm512_mask_storeu_ps(out, mask, value);
        }
      }
    }
  }
}

bool AskForTiles() {
  if (!__builtin_cpu_supports("avx512bf16") ||
      !__builtin_cpu_supports("avx512bw"))
    return false;
  unsigned eax = 7, ebx = 0, ecx = 0, edx = 0;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if ((edx & kAmxBf16) == 0 || (edx & kAmxTile) == 0) return false;
  // Linux gives a process the tiles' 8 KiB of state only when it asks.
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

at::Tensor AlignedBytes(int64_t bytes) {
  return at::empty({bytes}, at::kByte);  // LibTorch aligns to 64 bytes
}

char* Bytes(const at::Tensor& tensor) {
  return static_cast<char*>(tensor.mutable_data_ptr());
}

// A weight as SplitMatrix holds it: where outputs 16 q ... 16 q + 15 begin.
struct Halves {
  const uint16_t* upper;
  const int16_t* rest;
  int64_t steps;

  const uint16_t* Upper(int64_t q) const {
    return upper + q * steps * kTileValues;
  }
  const int16_t* Rest(int64_t q) const {
    return rest + q * steps * kTileValues;
  }
};

// y [rows, out] = x [rows, in] times the weight.
template <int kParts>
CUPOLA_TILE_CODE void MultiplyMatrix(const float* x, int64_t rows, int64_t in,
                                     const Halves& weight, int64_t out,
                                     const float* bias, float* y) {
  const int64_t steps = weight.steps, row_blocks = Blocks(rows);
  const int64_t block_bytes = steps * kParts * 2 * kTileBytes;
  const at::Tensor row_parts = AlignedBytes(row_blocks * block_bytes);
  char* const row_tiles = Bytes(row_parts);
  at::parallel_for(0, row_blocks, 4, [=](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      SplitRows<kParts>(x + b * kBlock * in,
                        std::min(kBlock, rows - b * kBlock), in,
                        row_tiles + b * block_bytes);
    }
  });
  // A thread takes a range of panels, a few at a time, and lets the rows go by,
  // a cacheful at a time.
  const int64_t panels = Blocks(out);
  const int64_t height = std::max<int64_t>(1, kRowsBytes / block_bytes);
  const int64_t width =
      std::clamp<int64_t>(kPanelsBytes / block_bytes, 1, kMaxPanels);
  const int64_t rest_bytes = steps * (kParts - 1) * kTileBytes;
  const bool stream = rows * out * sizeof(float) > kStreamedBytes;
  at::parallel_for(
      0, DivideUp(panels, width), 1, [=](int64_t begin, int64_t end) {
        const at::Tensor rests = AlignedBytes(width * 2 * rest_bytes);
        alignas(64) float blocks[kMaxPanels * kBlock * kBlock];
        const TileRegisters registers;
        for (int64_t first = 0; first < row_blocks; first += height) {
          const int64_t last = std::min(first + height, row_blocks);
          for (int64_t group = begin; group < end; ++group) {
            const int64_t column = group * width * kBlock;
            const int64_t count = std::min(width, panels - group * width);
            Panel parts[kMaxPanels];
            for (int64_t i = 0; i < 2 * count; ++i) {
              const int64_t q = group * width * 2 + i;
              char* const to = Bytes(rests) + i * rest_bytes;
              if (kParts > 1) {
                SplitRests<kParts>(weight.Upper(q), weight.Rest(q), steps, to);
              }
              parts[i / 2].upper[i % 2] = weight.Upper(q);
              parts[i / 2].rests[i % 2] = to;
            }
            for (int64_t b = first; b < last; ++b) {
              const int64_t real = std::min(kBlock, rows - b * kBlock);
              for (int64_t p = 0; p < count; ++p) {
                const auto multiply = real <= kTile
                                          ? MultiplyBlock<kParts, true>
                                          : MultiplyBlock<kParts, false>;
                multiply(row_tiles + b * block_bytes, parts[p], steps,
                         blocks + p * kBlock * kBlock);
              }
              StoreBlocks(blocks, real, std::min(count * kBlock, out - column),
                          bias != nullptr ? bias + column : nullptr,
                          y + b * kBlock * out + column, out, stream);
            }
          }
        }
        if (stream) _mm_sfence();
      });
}

// kOutputs outputs of kRows rows, in float32, from a tile's line on. x: [kRows,
// whole steps].
template <int kRows, int kOutputs>
CUPOLA_TILE_CODE void MultiplyLines(const float* x, const Halves& weight,
                                    int64_t place, float* sums) {
  const uint16_t* const upper = weight.upper + place;
  const int16_t* const rest = weight.rest + place;
  // Where few sums are made, two parts of each: more additions in flight.
  constexpr int kSums = kRows * kOutputs <= 8 ? 2 : 1;
  __m512 added[kRows][kOutputs][kSums];
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOutputs; ++o) {
      for (int i = 0; i < kSums; ++i) added[r][o][i] = _mm512_setzero_ps();
    }
  }
  for (int64_t s = 0; s < weight.steps; ++s) {
    for (int o = 0; o < kOutputs; ++o) {
      const int64_t at = s * kTileValues + o * kBlock;
      if (kOutputs > 1) {
        _mm_prefetch(upper + at + 4 * kTileValues, _MM_HINT_T0);
        _mm_prefetch(rest + at + 4 * kTileValues, _MM_HINT_T0);
      }
      const Inputs w = LoadInputs(upper + at, rest + at);
      for (int r = 0; r < kRows; ++r) {
        const float* row = x + (r * weight.steps + s) * kBlock;
        __m512* const sum = added[r][o];
        sum[0] = _mm512_fmadd_ps(_mm512_loadu_ps(row), w.first, sum[0]);
        __m512& last = sum[kSums - 1];
        last = _mm512_fmadd_ps(_mm512_loadu_ps(row + 16), w.second, last);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOutputs; ++o) {
      __m512 sum = added[r][o][0];
      if (kSums == 2) sum = _mm512_add_ps(sum, added[r][o][kSums - 1]);
      sums[r * kOutputs + o] = Sum(sum);
    }
  }
}

// Where output o has its 32 inputs of step 0; those of the next step are
// kTileValues further.
int64_t Place(int64_t o, int64_t steps) {
  return o / kTile * steps * kTileValues + o % kTile * kBlock;
}

// MultiplyMatrix for a few rows (a token that is generated), where reading the
// weight is all that takes time.
template <int kRows>
void MultiplyRows(const float* x, const Halves& weight, int64_t out,
                  const float* bias, float* y) {
  constexpr int kOutputs = kRows == 1 ? 16 : kRows == 2 ? 8 : 4;
  at::parallel_for(0, DivideUp(out, kTile), 8, [=](int64_t begin, int64_t end) {
    const int64_t last = std::min(end * kTile, out);
    for (int64_t first = begin * kTile; first < last; first += kOutputs) {
      float sums[kRows * kOutputs];
      MultiplyLines<kRows, kOutputs>(x, weight, Place(first, weight.steps),
                                     sums);
      for (int64_t i = 0; i < std::min<int64_t>(kOutputs, last - first); ++i) {
        for (int r = 0; r < kRows; ++r) {
          y[r * out + first + i] = sums[r * kOutputs + i] +
                                   (bias == nullptr ? 0.0f : bias[first + i]);
        }
      }
    }
  });
}

}  // namespace

bool SplitMatrix::Supported() {
  static const bool supported = AskForTiles();
  return supported;
}

SplitMatrix::SplitMatrix(const at::Tensor& weight, Parts parts)
    : in_(weight.size(1)), out_(weight.size(0)), parts_(parts) {
  const int64_t steps = Blocks(in_);
  const int64_t values = Blocks(out_) * 2 * steps * kTileValues;
  upper_ = at::zeros({values}, at::kShort);
  rest_ = at::zeros({values}, at::kShort);
  const float* from = weight.const_data_ptr<float>();
  int16_t* upper = upper_.data_ptr<int16_t>();
  int16_t* rest = rest_.data_ptr<int16_t>();
  at::parallel_for(0, out_, 64, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t i = 0; i < in_; ++i) {
        const auto bits = absl::bit_cast<uint32_t>(from[o * in_ + i]);
        // The magnitude, rounded half up: the sign is a bit of its own. A carry
        // into the exponent is right, and what is left undoes it.
        const uint32_t rounded = (bits + 0x8000) >> 16;
        const int64_t at =
            Place(o, steps) + i / kBlock * kTileValues + i % kBlock;
        upper[at] = static_cast<int16_t>(rounded);
        rest[at] = static_cast<int16_t>(bits - (rounded << 16));
      }
    }
  });
}

namespace {

Halves HalvesOf(const at::Tensor& upper, const at::Tensor& rest, int64_t in) {
  return {reinterpret_cast<const uint16_t*>(upper.const_data_ptr<int16_t>()),
          rest.const_data_ptr<int16_t>(), Blocks(in)};
}

at::Tensor WholeSteps(const at::Tensor& x) {
  const int64_t in = x.size(1);
  return at::constant_pad_nd(x, {0, Blocks(in) * kBlock - in}).contiguous();
}

}  // namespace

at::Tensor SplitMatrix::Multiply(const at::Tensor& x,
                                 const at::Tensor& bias) const {
  at::Tensor y = at::empty({x.size(0), out_}, x.options());
  const int64_t rows = x.size(0);
  const Halves weight = HalvesOf(upper_, rest_, in_);
  const float* added = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  float* to = y.data_ptr<float>();
  if (rows <= kFewRows) {
    const at::Tensor padded = WholeSteps(x);
    constexpr decltype(&MultiplyRows<1>) kByRows[kFewRows + 1] = {
        nullptr, MultiplyRows<1>, MultiplyRows<2>, MultiplyRows<3>,
        MultiplyRows<4>};
    if (rows > 0) {
      kByRows[rows](padded.const_data_ptr<float>(), weight, out_, added, to);
    }
    return y;
  }
  const auto multiply =
      parts_ == Parts::kTwo ? MultiplyMatrix<2> : MultiplyMatrix<3>;
  multiply(x.const_data_ptr<float>(), rows, in_, weight, out_, added, to);
  return y;
}

at::Tensor SplitMatrix::MultiplyFirstParts(const at::Tensor& x,
                                           const at::Tensor& bias) const {
  at::Tensor y = at::empty({x.size(0), out_}, x.options());
  MultiplyMatrix<1>(x.const_data_ptr<float>(), x.size(0), in_,
                    HalvesOf(upper_, rest_, in_), out_,
                    bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                    y.data_ptr<float>());
  return y;
}

void SplitMatrix::Dots(const float* x, absl::Span<const int32_t> outputs,
                       float* y) const {
  const Halves weight = HalvesOf(upper_, rest_, in_);
  std::vector<float> padded;
  if (in_ % kBlock != 0) {
    padded.assign(weight.steps * kBlock, 0.0f);
    std::copy(x, x + in_, padded.begin());
    x = padded.data();
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    MultiplyLines<1, 1>(x, weight, Place(outputs[i], weight.steps), y + i);
  }
}

at::Tensor SplitMatrix::Weight() const { return Rows(at::arange(out_)); }

at::Tensor SplitMatrix::Rows(const at::Tensor& outputs) const {
  const at::Tensor index = outputs.contiguous();
  const int64_t* rows = index.const_data_ptr<int64_t>();
  at::Tensor weight = at::empty({index.numel(), in_}, at::kFloat);
  const Halves halves = HalvesOf(upper_, rest_, in_);
  float* to = weight.data_ptr<float>();
  at::parallel_for(0, index.numel(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const int64_t place = Place(rows[o], halves.steps);
      for (int64_t i = 0; i < in_; ++i) {
        const int64_t at = place + i / kBlock * kTileValues + i % kBlock;
        to[o * in_ + i] = absl::bit_cast<float>(
            (static_cast<uint32_t>(halves.upper[at]) << 16) +
            static_cast<uint32_t>(static_cast<int32_t>(halves.rest[at])));
      }
    }
  });
  return weight;
}

#else

bool SplitMatrix::Supported() { return false; }
SplitMatrix::SplitMatrix(const at::Tensor&, Parts) {}
at::Tensor SplitMatrix::Multiply(const at::Tensor&, const at::Tensor&) const {
  return {};
}
at::Tensor SplitMatrix::MultiplyFirstParts(const at::Tensor&,
                                           const at::Tensor&) const {
  return {};
}
void SplitMatrix::Dots(const float*, absl::Span<const int32_t>, float*) const {}
at::Tensor SplitMatrix::Weight() const { return {}; }
at::Tensor SplitMatrix::Rows(const at::Tensor&) const { return {}; }

#endif

}  // namespace cupola::model
