#include "storage/digest.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace cupola::storage {
namespace {

// sha256 of the bytes that the header's table prescribes, from coreutils:
//   printf 'D\3\0\0\0\0\0\0\0abcB\2\0\0\0\0\0\0\0hi' | sha256sum
TEST(DigestTest, FollowsTheDocumentedBytes) {
  EXPECT_EQ(ToHex(Hasher("abc").AddBytes("hi").Finish()),
            "4ddf54b4b7a347992204269b8e59965fb121819092f3f426fe246451d41f60ea");
}

//   printf
//   'D\1\0\0\0\0\0\0\0xI\376\377\377\377\377\377\377\377F\0\0\0\0\0\0\370\77i\2\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0l\1\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0'
//   | sha256sum
TEST(DigestTest, FollowsTheDocumentedBytesOfNumbers) {
  const int32_t narrow[] = {1, 2};
  const int64_t wide[] = {3};
  EXPECT_EQ(ToHex(Hasher("x")
                      .AddInt(-2)
                      .AddDouble(1.5)
                      .AddInts(narrow, 2)
                      .AddInts(wide, 1)
                      .Finish()),
            "694d0e938f51cd52af830b1696448ca46cfa4d21132457590d5484ec5f9b660b");
}

TEST(DigestTest, DomainsSeparate) {
  EXPECT_NE(Hasher("features/1").Finish(), Hasher("features/2").Finish());
  // A domain is no field.
  EXPECT_NE(Hasher("ab").AddBytes("c").Finish(),
            Hasher("a").AddBytes("bc").Finish());
}

TEST(DigestTest, FieldsDoNotRunTogether) {
  EXPECT_NE(Hasher("d").AddBytes("ab").AddBytes("c").Finish(),
            Hasher("d").AddBytes("a").AddBytes("bc").Finish());
  EXPECT_NE(Hasher("d").AddBytes("").Finish(), Hasher("d").Finish());
  EXPECT_NE(Hasher("d").AddBytes("").AddBytes("x").Finish(),
            Hasher("d").AddBytes("x").AddBytes("").Finish());
  const int64_t values[] = {1, 2, 3};
  EXPECT_NE(Hasher("d").AddInts(values, 2).AddInts(values + 2, 1).Finish(),
            Hasher("d").AddInts(values, 1).AddInts(values + 1, 2).Finish());
  EXPECT_NE(Hasher("d").AddInts(values, 0).Finish(), Hasher("d").Finish());
}

// Bytes that imitate another field's encoding are still bytes.
TEST(DigestTest, TypesDoNotCollide) {
  const std::string zeros(8, '\0');
  const int32_t narrow[] = {5, 0};
  const int64_t wide[] = {5};
  const std::vector<Digest> digests = {
      Hasher("d").AddInt(0).Finish(),
      Hasher("d").AddDouble(0).Finish(),
      Hasher("d").AddBytes(zeros).Finish(),
      Hasher("d").AddDigest(Digest{}).Finish(),
      Hasher("d").AddBytes(std::string(32, '\0')).Finish(),
      Hasher("d").AddInts(narrow, 1).Finish(),
      Hasher("d").AddInts(narrow, 2).Finish(),
      Hasher("d").AddInts(wide, 1).Finish(),
      Hasher("d").AddInt(5).Finish(),
  };
  for (size_t i = 0; i < digests.size(); ++i) {
    for (size_t j = i + 1; j < digests.size(); ++j) {
      EXPECT_NE(digests[i], digests[j]) << i << " and " << j;
    }
  }
}

// How an array enters a key: shape and dtype are fields of their own, so equal
// bytes of other shapes have other keys.
TEST(DigestTest, ShapeAndDtypeAreDistinguished) {
  const std::string bytes(24, 'x');
  const auto digest = [&](int64_t dtype, const std::vector<int64_t>& shape) {
    return Hasher("array")
        .AddInt(dtype)
        .AddInts(shape.data(), shape.size())
        .AddBytes(bytes)
        .Finish();
  };
  EXPECT_NE(digest(1, {2, 3}), digest(1, {3, 2}));
  EXPECT_NE(digest(1, {6}), digest(1, {1, 6}));
  EXPECT_NE(digest(1, {6}), digest(5, {6}));
}

TEST(DigestTest, EqualNumbersHaveEqualDigests) {
  EXPECT_EQ(Hasher("d").AddDouble(-0.0).Finish(),
            Hasher("d").AddDouble(0.0).Finish());
  EXPECT_NE(Hasher("d").AddDouble(1.0).Finish(),
            Hasher("d").AddDouble(std::nextafter(1.0, 2.0)).Finish());
  EXPECT_NE(
      Hasher("d").AddDouble(std::numeric_limits<double>::infinity()).Finish(),
      Hasher("d").AddDouble(-std::numeric_limits<double>::infinity()).Finish());
}

TEST(DigestTest, PiecesAreTheWhole) {
  Hasher pieces("d");
  pieces.BeginBytes(6).AddPiece("abc", 3).AddPiece("", 0).AddPiece("def", 3);
  EXPECT_EQ(pieces.Finish(), Hasher("d").AddBytes("abcdef").Finish());
}

TEST(DigestDeathTest, BrokenRequirementsEndTheProcess) {
  EXPECT_DEATH(Hasher("d").BeginBytes(3).AddPiece("ab", 2).Finish(),
               "incomplete");
  EXPECT_DEATH(Hasher("d").BeginBytes(3).AddPiece("ab", 2).AddInt(1),
               "incomplete");
  EXPECT_DEATH(Hasher("d").BeginBytes(1).AddPiece("ab", 2), "exceed");
  EXPECT_DEATH(Hasher("d").AddPiece("ab", 2), "exceed");
  EXPECT_DEATH(
      {
        Hasher hasher("d");
        hasher.Finish();
        hasher.Finish();
      },
      "twice");
}

}  // namespace
}  // namespace cupola::storage
