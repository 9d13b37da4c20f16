#include "server/engine/ask_jacobian.h"

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using analysis::JacobianAnalysis;
using storage::DType;
using ::testing::HasSubstr;

Array Zeros(DType dtype, std::vector<int64_t> shape) {
  int64_t values = 1;
  for (int64_t size : shape) values *= size;
  return {dtype, std::move(shape), std::string(4 * values, '\0')};
}

// What a prompt of `tokens` tokens with `k` active latents has.
std::shared_ptr<const storage::Record> RecordOf(int64_t tokens, int64_t k) {
  auto record = std::make_shared<storage::Record>(
      JacobianAnalysis::kFields, Array{DType::kFloat32, {0}, {}});
  (*record)[JacobianAnalysis::kInLatents] = Zeros(DType::kInt32, {tokens, k});
  (*record)[JacobianAnalysis::kInActs] = Zeros(DType::kFloat32, {tokens, k});
  (*record)[JacobianAnalysis::kOutLatents] = Zeros(DType::kInt32, {tokens, k});
  (*record)[JacobianAnalysis::kOutActs] = Zeros(DType::kFloat32, {tokens, k});
  (*record)[JacobianAnalysis::kValues] = Zeros(DType::kFloat32, {tokens, k, k});
  (*record)[JacobianAnalysis::kIndptr] = {DType::kInt64, {0}, {}};
  return record;
}

TEST(AnswerJacobianTest, PadsToTheWidest) {
  Question question;
  question.labels = {"out"};
  Answered answered;
  answered.records = {RecordOf(2, 3), RecordOf(1, 5)};
  // 3 tokens of 5 x 5 values, and of 5 latents and activations on each side.
  EXPECT_TRUE(CheckPaddedJacobians(answered.records, 540).ok());
  EXPECT_FALSE(CheckPaddedJacobians(answered.records, 539).ok());
  const JacobianAnswer answer = AnswerJacobian(question, answered);
  EXPECT_EQ(answer.values.shape, (std::vector<int64_t>{3, 5, 5}));
  EXPECT_EQ(answer.in_latents.shape, (std::vector<int64_t>{3, 5}));
}

// One wide token among many narrow ones: a little data, much padding.
TEST(AnswerJacobianTest, RefusesPaddingBeforeItIsMade) {
  const absl::Status status = CheckPaddedJacobians(
      {RecordOf(1, 1000), RecordOf(100'000, 1)}, int64_t{1} << 30);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1073741824"));
}

}  // namespace
}  // namespace cupola::engine
