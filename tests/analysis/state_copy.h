#ifndef CUPOLA_TESTS_ANALYSIS_STATE_COPY_H_
#define CUPOLA_TESTS_ANALYSIS_STATE_COPY_H_

#include <fstream>
#include <iterator>
#include <string>

#include "gtest/gtest.h"
#include "server/analysis/accumulator.h"
#include "storage/state_file.h"

// Accumulators saved to a state file and restored from it.

namespace cupola::analysis {

inline std::string StatePath() {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  return testing::TempDir() + "/" + test->test_suite_name() + "." +
         test->name() + ".state";
}

template <Accumulator A>
void SaveState(const A& from) {
  auto writer =
      storage::StateWriter::Create(StatePath(), {"test", A::kVersion, {}, 1});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(from.Save(writer->get()).ok());
  ASSERT_TRUE((*writer)->Commit().ok());
}

template <Accumulator A>
absl::Status RestoreState(A* to) {
  auto reader = storage::StateReader::Open(StatePath());
  return reader.ok() ? to->Restore(reader->get()) : reader.status();
}

// Into `to`, a zero of the same options.
template <Accumulator A>
void CopyThroughState(const A& from, A* to) {
  SaveState(from);
  const absl::Status status = RestoreState(to);
  ASSERT_TRUE(status.ok()) << status;
}

// The bytes of the state: the same for the same state.
template <Accumulator A>
std::string StateBytes(const A& from) {
  SaveState(from);
  std::ifstream file(StatePath(), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What Restore of `zero` says of a body of these bytes.
template <Accumulator A>
absl::Status RestoreBytes(const std::string& body, A* zero) {
  auto writer =
      storage::StateWriter::Create(StatePath(), {"test", A::kVersion, {}, 1});
  EXPECT_TRUE(writer.ok()) << writer.status();
  EXPECT_TRUE((*writer)->Append(body.data(), body.size()).ok());
  EXPECT_TRUE((*writer)->Commit().ok());
  return RestoreState(zero);
}

// The body of the state, without the file's header and checksum.
template <Accumulator A>
std::string StateBody(const A& from) {
  SaveState(from);
  auto reader = storage::StateReader::Open(StatePath());
  EXPECT_TRUE(reader.ok()) << reader.status();
  std::string body((*reader)->left(), '\0');
  EXPECT_TRUE((*reader)->Read(body.data(), body.size()).ok());
  return body;
}

}  // namespace cupola::analysis

#endif  // CUPOLA_TESTS_ANALYSIS_STATE_COPY_H_
