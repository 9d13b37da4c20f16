#ifndef CUPOLA_TESTS_STRESS_SAME_ANSWER_H_
#define CUPOLA_TESTS_STRESS_SAME_ANSWER_H_

#include <string>

#include "google/protobuf/message.h"

namespace cupola::testing {

// Empty where two answers say the same, else the field in which they differ.
// What tells how an answer came about (times, whether from the cache) does not
// count, and floating-point numbers may differ as they do when work is batched
// otherwise: by 5e-5 of their tensor's scale.
std::string Difference(const google::protobuf::Message& a,
                       const google::protobuf::Message& b);

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_STRESS_SAME_ANSWER_H_
