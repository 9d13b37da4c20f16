#include "server/model/split_matrix.h"

#include <algorithm>
#include <cstring>

#include "ATen/Parallel.h"

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

constexpr int64_t kBlock = 32;        // rows, outputs and inputs of a step
constexpr int64_t kTileBytes = 1024;  // 16 x 32 bfloat16
constexpr int64_t kTileValues = 512;  // float32 values that fill a tile
constexpr int64_t kStepValues = kBlock * kBlock;
// Input rows that stay in a core's second-level cache while panels of the
// weight go by, and the panels' parts beside them.
constexpr int64_t kRowsBytes = int64_t{1} << 20;
constexpr int64_t kPanelsBytes = int64_t{1} << 19;
// Panels whose blocks are written out together, so that a row's values leave in
// runs of 512 bytes.
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

// Input rows [rows <= 32, in] as tiles: for each 32 inputs the first parts of
// rows 0-15 and 16-31, then the second parts, and so on.
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
    for (int64_t r = 0; r < kBlock; ++r) {
      const bool real = r < rows;
      const float* in_row = x + r * in + step * kBlock;
      char* out = tiles + r * 64;
      __m512 first = _mm512_maskz_loadu_ps(real ? first_mask : 0, in_row);
      __m512 second =
          _mm512_maskz_loadu_ps(real ? second_mask : 0, in_row + 16);
      for (int part = 0; part < kParts; ++part, out += 2 * kTileBytes) {
        const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(second, first);
        _mm512_store_si512(out, rounded);
        first = _mm512_sub_ps(first, Widen(_mm512_castsi512_si256(rounded)));
        second =
            _mm512_sub_ps(second, Widen(_mm512_extracti64x4_epi64(rounded, 1)));
      }
    }
    tiles += kParts * 2 * kTileBytes;
  }
}

// A panel's float32 values as tiles: for each step the first parts of outputs
// 0-15 and 16-31, then the second parts, and so on. A tile's row holds a pair
// of inputs of each output, side by side in 32 bits.
template <int kParts>
CUPOLA_TILE_CODE void SplitPanel(const float* panel, int64_t steps,
                                 char* tiles) {
  // Adding half and cutting rounds to bfloat16, half away from zero.
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t tile = 0; tile < 2; ++tile) {
      for (int64_t r = 0; r < 16; ++r, panel += 32) {
        // The processor's own prefetching ends with every 4 KiB: one step.
        _mm_prefetch(panel + 2 * kStepValues, _MM_HINT_T0);
        _mm_prefetch(panel + 2 * kStepValues + 16, _MM_HINT_T0);
        __m512 even = _mm512_load_ps(panel), odd = _mm512_load_ps(panel + 16);
        char* out = tiles + tile * kTileBytes + r * 64;
        for (int part = 0; part < kParts; ++part, out += 2 * kTileBytes) {
          const __m512i even_part = _mm512_and_si512(
              _mm512_add_epi32(_mm512_castps_si512(even), half), upper);
          const __m512i odd_part = _mm512_and_si512(
              _mm512_add_epi32(_mm512_castps_si512(odd), half), upper);
          _mm512_store_si512(
              out, _mm512_or_si512(odd_part, _mm512_srli_epi32(even_part, 16)));
          even = _mm512_sub_ps(even, _mm512_castsi512_ps(even_part));
          odd = _mm512_sub_ps(odd, _mm512_castsi512_ps(odd_part));
        }
      }
    }
    tiles += kParts * 2 * kTileBytes;
  }
}

// Tiles 0-3 hold the block's sums; 4 and 5 a part of the rows (0-15, 16-31), 6
// and 7 a part of the panel. Each product of tiles is 8,192 multiplications in
// 16 cycles.
template <bool kHalf>
CUPOLA_TILE_CODE inline void LoadRows(const char* rows, int part) {
  _tile_loadd(4, rows + part * 2 * kTileBytes, 64);
  if (!kHalf) _tile_loadd(5, rows + part * 2 * kTileBytes + kTileBytes, 64);
}

CUPOLA_TILE_CODE inline void LoadPanel(const char* panel, int part) {
  _tile_loadd(6, panel + part * 2 * kTileBytes, 64);
  _tile_loadd(7, panel + part * 2 * kTileBytes + kTileBytes, 64);
}

template <bool kHalf>
CUPOLA_TILE_CODE inline void AddProducts() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if (!kHalf) {
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// block [32, 32] = rows x panel over `steps` steps; with kHalf only the first
// 16 rows. The products come in the order that loads the fewest tiles.
template <int kParts, bool kHalf>
CUPOLA_TILE_CODE void MultiplyBlock(const char* rows, const char* panel,
                                    int64_t steps, float* block) {
  _tile_zero(0);
  _tile_zero(1);
  if (!kHalf) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; ++s) {
    LoadPanel(panel, 0);
    if (kParts == 3) {
      LoadRows<kHalf>(rows, 2);
      AddProducts<kHalf>();  // x3 w1
    }
    LoadRows<kHalf>(rows, 1);
    AddProducts<kHalf>();  // x2 w1
    if (kParts == 3) {
      LoadPanel(panel, 1);
      AddProducts<kHalf>();  // x2 w2
      LoadRows<kHalf>(rows, 0);
      AddProducts<kHalf>();  // x1 w2
      LoadPanel(panel, 2);
      AddProducts<kHalf>();  // x1 w3
      LoadPanel(panel, 0);
      AddProducts<kHalf>();  // x1 w1
    } else {
      LoadRows<kHalf>(rows, 0);
      AddProducts<kHalf>();  // x1 w1
      LoadPanel(panel, 1);
      AddProducts<kHalf>();  // x1 w2
    }
    rows += kParts * 2 * kTileBytes;
    panel += kParts * 2 * kTileBytes;
  }
  constexpr int64_t kStride = kBlock * sizeof(float);
  _tile_stored(0, block, kStride);
  _tile_stored(1, block + 16, kStride);
  if (!kHalf) {
    _tile_stored(2, block + 16 * kBlock, kStride);
    _tile_stored(3, block + 16 * kBlock + 16, kStride);
  }
}

// Writes `rows` rows of a group of blocks, `columns` values each, plus bias, to
// y. `stream`: past the caches, for answers that they would not hold anyway:
// then a line is not read before it is written.
CUPOLA_TILE_CODE void StoreBlocks(const float* blocks, int64_t rows,
                                  int64_t columns, const float* bias, float* y,
                                  int64_t stride, bool stream) {
  stream = stream && columns % 16 == 0 && stride % 16 == 0;
  for (int64_t r = 0; r < rows; ++r) {
    float* out = y + r * stride;
    for (int64_t c = 0; c < columns; c += 16) {
      const int64_t count = std::min<int64_t>(16, columns - c);
      const auto mask = static_cast<__mmask16>((1u << count) - 1);
      __m512 value = _mm512_load_ps(blocks + c / kBlock * kBlock * kBlock +
                                    r * kBlock + c % kBlock);
      if (bias != nullptr) {
        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, bias + c));
      }
      if (stream) {
        _mm512_stream_ps(out + c, value);
      } else {
        _mm512_mask_storeu_ps(out + c, mask, value);
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

// y [rows, out] = x [rows, in] times the weight.
template <int kParts>
CUPOLA_TILE_CODE void MultiplyMatrix(const float* x, int64_t rows, int64_t in,
                                     const float* weight, int64_t out,
                                     const float* bias, float* y) {
  const int64_t steps = Blocks(in), row_blocks = Blocks(rows);
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
  const bool stream = rows * out * sizeof(float) > kStreamedBytes;
  at::parallel_for(
      0, DivideUp(panels, width), 1, [=](int64_t begin, int64_t end) {
        const at::Tensor panel_parts = AlignedBytes(width * block_bytes);
        char* const panel_tiles = Bytes(panel_parts);
        alignas(64) float blocks[kMaxPanels * kStepValues];
        const TileRegisters registers;
        for (int64_t first = 0; first < row_blocks; first += height) {
          const int64_t last = std::min(first + height, row_blocks);
          for (int64_t group = begin; group < end; ++group) {
            const int64_t column = group * width * kBlock;
            const int64_t count = std::min(width, panels - group * width);
            for (int64_t p = 0; p < count; ++p) {
              SplitPanel<kParts>(
                  weight + (group * width + p) * steps * kStepValues, steps,
                  panel_tiles + p * block_bytes);
            }
            for (int64_t b = first; b < last; ++b) {
              const int64_t real = std::min(kBlock, rows - b * kBlock);
              for (int64_t p = 0; p < count; ++p) {
                const auto multiply = real <= kBlock / 2
                                          ? MultiplyBlock<kParts, true>
                                          : MultiplyBlock<kParts, false>;
                multiply(row_tiles + b * block_bytes,
                         panel_tiles + p * block_bytes, steps,
                         blocks + p * kStepValues);
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

// 16 outputs (fewer: `mask`) of kRows rows, in float32. x: [kRows, whole
// steps].
template <int kRows>
CUPOLA_TILE_CODE void MultiplyTile(const float* x, int64_t steps,
                                   const float* tile, unsigned mask,
                                   const float* bias, float* y,
                                   int64_t stride) {
  // Two sums a row: twice the additions in flight.
  __m512 sums[kRows][2];
  for (int r = 0; r < kRows; ++r) {
    sums[r][0] = sums[r][1] = _mm512_setzero_ps();
  }
  for (int64_t s = 0; s < steps; ++s, tile += kStepValues) {
    for (int64_t i = 0; i < kBlock; ++i) {
      _mm_prefetch(tile + 2 * kStepValues + i * 16, _MM_HINT_T0);
      const __m512 w = _mm512_load_ps(tile + i * 16);
      for (int r = 0; r < kRows; ++r) {
        sums[r][i % 2] = _mm512_fmadd_ps(
            _mm512_set1_ps(x[(r * steps + s) * kBlock + i]), w, sums[r][i % 2]);
      }
    }
  }
  const __m512 added =
      bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, bias);
  for (int r = 0; r < kRows; ++r) {
    _mm512_mask_storeu_ps(
        y + r * stride, mask,
        _mm512_add_ps(_mm512_add_ps(sums[r][0], sums[r][1]), added));
  }
}

// MultiplyMatrix for a few rows (a token that is generated), where reading the
// weight is all that takes time.
template <int kRows>
void MultiplyRows(const float* x, int64_t in, const float* weight, int64_t out,
                  const float* bias, float* y) {
  const int64_t steps = Blocks(in);
  at::parallel_for(0, DivideUp(out, 16), 8, [=](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t count = std::min<int64_t>(16, out - tile * 16);
      MultiplyTile<kRows>(
          x, steps,
          weight + tile / 2 * steps * kStepValues + tile % 2 * kTileValues,
          (1u << count) - 1, bias == nullptr ? nullptr : bias + tile * 16,
          y + tile * 16, out);
    }
  });
}

// Where weight [out, in] has its value (o, i).
int64_t Place(int64_t o, int64_t i, int64_t steps) {
  return (o / kBlock * steps + i / kBlock) * kStepValues +
         o % kBlock / 16 * kTileValues + i % kBlock * 16 + o % 16;
}

}  // namespace

bool SplitMatrix::Supported() {
  static const bool supported = AskForTiles();
  return supported;
}

SplitMatrix::SplitMatrix(const at::Tensor& weight, Parts parts)
    : in_(weight.size(1)), out_(weight.size(0)), parts_(parts) {
  const int64_t steps = Blocks(in_), panels = Blocks(out_);
  weight_ = at::zeros({panels * steps * kStepValues}, at::kFloat);
  const float* from = weight.const_data_ptr<float>();
  float* to = weight_.data_ptr<float>();
  at::parallel_for(0, panels, 8, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin * kBlock; o < std::min(end * kBlock, out_); ++o) {
      for (int64_t i = 0; i < in_; ++i) {
        to[Place(o, i, steps)] = from[o * in_ + i];
      }
    }
  });
}

at::Tensor SplitMatrix::Multiply(const at::Tensor& x,
                                 const at::Tensor& bias) const {
  at::Tensor y = at::empty({x.size(0), out_}, x.options());
  const int64_t rows = x.size(0);
  const float* weight = weight_.const_data_ptr<float>();
  const float* added = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  float* to = y.data_ptr<float>();
  if (rows <= kFewRows) {
    const at::Tensor padded =
        at::constant_pad_nd(x, {0, Blocks(in_) * kBlock - in_}).contiguous();
    constexpr decltype(&MultiplyRows<1>) kByRows[kFewRows + 1] = {
        nullptr, MultiplyRows<1>, MultiplyRows<2>, MultiplyRows<3>,
        MultiplyRows<4>};
    if (rows > 0) {
      kByRows[rows](padded.const_data_ptr<float>(), in_, weight, out_, added,
                    to);
    }
    return y;
  }
  const auto multiply =
      parts_ == Parts::kTwo ? MultiplyMatrix<2> : MultiplyMatrix<3>;
  multiply(x.const_data_ptr<float>(), rows, in_, weight, out_, added, to);
  return y;
}

at::Tensor SplitMatrix::Weight() const { return Rows(at::arange(out_)); }

at::Tensor SplitMatrix::Rows(const at::Tensor& outputs) const {
  const at::Tensor index = outputs.contiguous();
  const int64_t* rows = index.const_data_ptr<int64_t>();
  at::Tensor weight = at::empty({index.numel(), in_}, at::kFloat);
  const float* from = weight_.const_data_ptr<float>();
  float* to = weight.data_ptr<float>();
  const int64_t steps = Blocks(in_);
  at::parallel_for(0, index.numel(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t i = 0; i < in_; ++i) {
        to[o * in_ + i] = from[Place(rows[o], i, steps)];
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
at::Tensor SplitMatrix::Weight() const { return {}; }
at::Tensor SplitMatrix::Rows(const at::Tensor&) const { return {}; }

#endif

}  // namespace cupola::model
