#ifndef CUPOLA_TESTS_STRESS_MESSAGE_MUTATOR_H_
#define CUPOLA_TESTS_STRESS_MESSAGE_MUTATOR_H_

#include <cstdint>
#include <random>
#include <string>

#include "google/protobuf/message.h"

namespace cupola::testing {

// Makes of a good message one that nobody should send: fields set to values at
// the ends of their types, left out, repeated and filled with what belongs
// elsewhere; then, of some, bytes flipped, cut, inserted, taken from another
// message, and lengths that are not true. The same seed gives the same
// messages. Not thread-safe.
class MessageMutator {
 public:
  explicit MessageMutator(uint64_t seed) : random_(seed) {}

  // The bytes of a changed copy of `message`; `other` is any message's bytes,
  // pieces of which may come to stand in it.
  std::string Mutate(const google::protobuf::Message& message,
                     const std::string& other);

  // 0 <= value < end.
  uint64_t Below(uint64_t end) { return random_() % end; }

 private:
  bool Chance(int percent) {
    return Below(100) < static_cast<uint64_t>(percent);
  }
  void ChangeMessage(google::protobuf::Message* message);
  void ChangeSingular(google::protobuf::Message* message,
                      const google::protobuf::FieldDescriptor* field);
  void ChangeRepeated(google::protobuf::Message* message,
                      const google::protobuf::FieldDescriptor* field);
  void Append(google::protobuf::Message* message,
              const google::protobuf::FieldDescriptor* field);
  void ChangeBytes(std::string* bytes, const std::string& other);
  int64_t Integer();
  double Real();
  std::string Text();

  std::mt19937_64 random_;
};

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_STRESS_MESSAGE_MUTATOR_H_
