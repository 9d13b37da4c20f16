#include "storage/record.h"

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

using ::testing::HasSubstr;

const absl::Time kNow = absl::FromUnixMicros(1234567890123456);

Array MakeArray(DType dtype, std::vector<int64_t> shape) {
  Array array{dtype, std::move(shape), ""};
  array.bytes.resize(*ByteSize(array.dtype, array.shape));
  for (size_t i = 0; i < array.bytes.size(); ++i) {
    array.bytes[i] = static_cast<char>(i * 37 + 11);
  }
  return array;
}

std::string Encode(const CacheKey& key, const Record& record) {
  absl::StatusOr<std::string> encoded = EncodeRecord(key, record, kNow);
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  return encoded.value_or("");
}

// Why decoding fails, or "OK".
std::string Reason(const CacheKey& key, const std::string& bytes) {
  const absl::Status status = DecodeRecord(key, bytes).status();
  if (status.ok()) return "OK";
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  return std::string(status.message());
}

template <typename T>
std::string With(std::string bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
  return bytes;
}

TEST(KeyTest, Bytes) {
  CacheKey key;
  key.scope = 0x0102030405060708;
  key.operation = 9;
  for (int i = 0; i < 32; ++i) key.digest[i] = 100 + i;
  std::string expected("r\x01\x01\x02\x03\x04\x05\x06\x07\x08\x09", 11);
  for (int i = 0; i < 32; ++i) expected.push_back(static_cast<char>(100 + i));
  EXPECT_EQ(EncodeKey(key), expected);
  EXPECT_EQ(EncodeKey(key).size(), kStoredKeyBytes);
}

TEST(KeyTest, ScopeIsTheDigestsBeginning) {
  Digest digest{};
  for (int i = 0; i < 8; ++i) digest[i] = i + 1;
  EXPECT_EQ(ScopeOf(digest), 0x0102030405060708u);
}

TEST(KeyTest, ScopeRangeHoldsExactlyTheScope) {
  for (uint64_t scope : {uint64_t{0}, uint64_t{0xff}, uint64_t{0x1ffff},
                         ~uint64_t{0} - 1, ~uint64_t{0}}) {
    const KeyRange range = ScopeRange(scope);
    CacheKey key;
    key.scope = scope;
    EXPECT_GE(EncodeKey(key), range.begin);
    key.operation = 255;
    key.digest.fill(255);
    EXPECT_LT(EncodeKey(key), range.end);
    if (scope + 1 != 0) {
      key = CacheKey{.scope = scope + 1};
      EXPECT_GE(EncodeKey(key), range.end);
    }
    if (scope != 0) {
      key = CacheKey{.scope = scope - 1, .operation = 255};
      key.digest.fill(255);
      EXPECT_LT(EncodeKey(key), range.begin);
    }
  }
}

TEST(RecordTest, EveryDtypeAndShapeComesBack) {
  const CacheKey key = NumberedKey(1);
  Record record;
  for (int dtype = 1; dtype <= 7; ++dtype) {
    const DType type = static_cast<DType>(dtype);
    record.push_back(MakeArray(type, {}));
    record.push_back(MakeArray(type, {0}));
    record.push_back(MakeArray(type, {3, 0, 5}));
    record.push_back(MakeArray(type, {7}));
    record.push_back(MakeArray(type, {2, 3, 4}));
  }
  record.push_back(MakeArray(DType::kInt32, std::vector<int64_t>(255, 1)));
  absl::StatusOr<StoredRecord> decoded = DecodeRecord(key, Encode(key, record));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->record, record);
  EXPECT_EQ(decoded->written, kNow);
}

TEST(RecordTest, ARecordWithoutArraysComesBack) {
  const CacheKey key = NumberedKey(1);
  absl::StatusOr<StoredRecord> decoded = DecodeRecord(key, Encode(key, {}));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(decoded->record.empty());
}

// The header's table, byte by byte.
TEST(RecordTest, Bytes) {
  const CacheKey key = NumberedKey(1);
  const std::string bytes = Encode(
      key, {MakeArray(DType::kUInt32, {2}), MakeArray(DType::kInt64, {})});
  ASSERT_EQ(bytes.size(), 72u + (2 + 8) + 2 + 8 + 8);
  EXPECT_EQ(bytes.substr(0, 8), std::string("CUPR\x01\0\x02\0", 8));
  int64_t micros;
  std::memcpy(&micros, bytes.data() + 8, 8);
  EXPECT_EQ(micros, 1234567890123456);
  EXPECT_EQ(std::memcmp(bytes.data() + 16, key.digest.data(), 32), 0);
  EXPECT_EQ(bytes.substr(48, 8), std::string("\x10\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes.substr(72, 12),
            std::string("\x06\x01\x02\0\0\0\0\0\0\0\x07\0", 12));
}

TEST(RecordTest, RefusesWhatItCannotSay) {
  const CacheKey key = NumberedKey(1);
  const auto message = [&](const Record& record) {
    const absl::Status status = EncodeRecord(key, record, kNow).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  Record record = {MakeArray(DType::kFloat32, {2})};
  record.push_back(record[0]);
  record[1].bytes.pop_back();
  EXPECT_THAT(message(record), HasSubstr("array 1: 7 bytes"));
  EXPECT_THAT(message({{static_cast<DType>(9), {1}, "x"}}),
              HasSubstr("array 0"));
  EXPECT_THAT(message({MakeArray(DType::kInt32, std::vector<int64_t>(256, 1))}),
              HasSubstr("rank 256"));
  EXPECT_THAT(message(Record(65536, MakeArray(DType::kInt32, {0}))),
              HasSubstr("65536 arrays"));
}

TEST(RecordTest, SaysWhyItFails) {
  const CacheKey key = NumberedKey(1);
  const Record record = {MakeArray(DType::kFloat32, {2, 3}),
                         MakeArray(DType::kInt32, {4})};
  const std::string good = Encode(key, record);
  ASSERT_EQ(Reason(key, good), "OK");
  constexpr size_t kFirstShape = 74, kSecondDtype = 90, kSecondRank = 91;

  EXPECT_THAT(Reason(key, ""), HasSubstr("truncated"));
  EXPECT_THAT(Reason(key, With(good, 0, 'X')), HasSubstr("bad magic"));
  EXPECT_THAT(Reason(key, With<uint8_t>(good, 4, 2)),
              HasSubstr("format version 2"));
  EXPECT_THAT(Reason(NumberedKey(2), good), HasSubstr("key echo"));
  EXPECT_THAT(Reason(key, With<uint8_t>(good, kSecondDtype, 0)),
              HasSubstr("unknown dtype 0 of array 1"));
  EXPECT_THAT(Reason(key, With<uint8_t>(good, kSecondDtype, 200)),
              HasSubstr("unknown dtype 200"));
  EXPECT_THAT(Reason(key, With<uint8_t>(good, kSecondRank, 255)),
              HasSubstr("truncated in the shape of array 1"));
  EXPECT_THAT(Reason(key, With<uint16_t>(good, 6, 65535)),
              HasSubstr("truncated"));
  for (int64_t size : {int64_t{-1}, int64_t{1} << 62, int64_t{1} << 40,
                       std::numeric_limits<int64_t>::min()}) {
    EXPECT_THAT(Reason(key, With(good, kFirstShape, size)),
                HasSubstr("shape overflow: array 0"));
  }
  EXPECT_THAT(Reason(key, With<int64_t>(good, kFirstShape, 1)),
              HasSubstr("belong to no array"));
  EXPECT_THAT(Reason(key, With<uint64_t>(good, 48, ~uint64_t{0})),
              HasSubstr("truncated"));
  EXPECT_THAT(Reason(key, With<uint64_t>(good, 48, 3)),
              HasSubstr("after the payload"));
  EXPECT_THAT(Reason(key, good + "x"), HasSubstr("after the payload"));
  EXPECT_THAT(Reason(key, With(good, good.size() - 1, 'X')),
              HasSubstr("checksum"));
  EXPECT_THAT(Reason(key, With(good, 60, 'X')), HasSubstr("checksum"));
}

// Equal bytes under another shape or dtype do not pass for each other.
TEST(RecordTest, TheChecksumCoversShapesDtypesAndTime) {
  const CacheKey key = NumberedKey(1);
  const std::string good = Encode(key, {MakeArray(DType::kFloat32, {2, 3})});
  const std::string transposed =
      With<int64_t>(With<int64_t>(good, 74, 3), 82, 2);
  EXPECT_THAT(Reason(key, transposed), HasSubstr("checksum"));
  EXPECT_THAT(Reason(key, With<uint8_t>(good, 72, 5)), HasSubstr("checksum"));
  EXPECT_THAT(Reason(key, With<uint8_t>(good, 8, 1)), HasSubstr("checksum"));
}

TEST(RecordTest, TheChecksumCoversTheWholeKey) {
  CacheKey key = NumberedKey(1);
  const std::string good = Encode(key, {MakeArray(DType::kFloat32, {2})});
  ++key.scope;
  EXPECT_THAT(Reason(key, good), HasSubstr("checksum"));
  --key.scope;
  ++key.operation;
  EXPECT_THAT(Reason(key, good), HasSubstr("checksum"));
}

TEST(RecordTest, EveryBitAndEveryLengthMatters) {
  const CacheKey key = NumberedKey(3);
  const std::string good = Encode(key, *NumberedRecord(3, 40));
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      EXPECT_NE(Reason(key, bad), "OK") << "byte " << i << " bit " << bit;
    }
    EXPECT_NE(Reason(key, good.substr(0, i)), "OK") << i << " bytes";
  }
}

// Noise behind a header that is right as far as it is checked: exercises the
// parsing of array headers. The sanitizers watch.
TEST(RecordTest, SurvivesNoise) {
  const CacheKey key = NumberedKey(1);
  std::mt19937 random(17);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = Encode(key, {});
    const size_t size = random() % 200;
    for (size_t i = 0; i < size; ++i) {
      // Small values are likely to be valid dtypes and ranks.
      bytes.push_back(static_cast<char>(random() % (random() % 2 ? 8 : 256)));
    }
    bytes = With<uint16_t>(bytes, 6, random() % 6);
    bytes = With<uint64_t>(bytes, 48, random() % 2 ? random() % 200 : random());
    EXPECT_NE(Reason(key, bytes), "OK");
  }
}

TEST(RecordTest, MemoryBytesCountsEverything) {
  EXPECT_EQ(MemoryBytes({}), static_cast<int64_t>(sizeof(Record)));
  EXPECT_EQ(MemoryBytes({MakeArray(DType::kFloat32, {2, 3})}),
            static_cast<int64_t>(sizeof(Record) + sizeof(Array) + 2 * 8 + 24));
}

}  // namespace
}  // namespace cupola::storage
