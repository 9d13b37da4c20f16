#ifndef CUPOLA_TESTS_SERVICE_FAKE_ENGINE_H_
#define CUPOLA_TESTS_SERVICE_FAKE_ENGINE_H_

#include <string>

// fake_engine.cc is another engine::Engine, linked instead of the real one: it
// knows no models, and its threads answer after a moment with what the request
// alone decides, so that the services above it can be tried without LibTorch
// and under ThreadSanitizer. Of the operations it has
//
//   Tokenize            each byte of a text is a token
//   GetFeatures         FakeEntries(text) entries, all kFakeValue
//   Generate            max_new_tokens tokens, one after the other
//   AccumulateJacobian  a job of kFakeChunks chunks
//   Models, Dictionaries, Describe, Load, jobs, and the numbers for metrics
//
// Each polls its request's deadline and cancellation. A program that links it
// must not ask for any other operation.

namespace cupola::testing {

inline constexpr float kFakeValue = 1.5f;
inline constexpr int kFakeChunks = 20;
// How many entries a prompt has: a million where it begins with 'L'.
inline int FakeEntries(const std::string& text) {
  return text.empty() || text[0] != 'L' ? static_cast<int>(text.size())
                                        : 1 << 20;
}

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_SERVICE_FAKE_ENGINE_H_
