#ifndef CUPOLA_TESTS_DICTIONARY_NAIVE_DICTIONARY_H_
#define CUPOLA_TESTS_DICTIONARY_NAIVE_DICTIONARY_H_

#include <vector>

#include "server/model/json.h"
#include "tests/dictionary/dictionary_files.h"

namespace cupola::dictionary::testing {

using Vector = std::vector<double>;

// The equations, one number after the other in double precision, from a
// configuration of SAELens 6 and its tensors. Slow and plain: what the tests
// compare with.
class NaiveDictionary {
 public:
  NaiveDictionary(const model::Json& cfg, const TensorMap& tensors)
      : cfg_(cfg), tensors_(tensors) {}

  Vector Encode(const Vector& x) const;                      // [d_sae]
  Vector Decode(const Vector& acts, const Vector& x) const;  // [d_out]

 private:
  double At(const char* name, int64_t i) const;
  double At(const char* name, int64_t i, int64_t j) const;
  double RowNorm(int64_t latent) const;
  Vector Normalize(const Vector& x) const;
  Vector Pursue(Vector residual) const;

  model::Json cfg_;
  TensorMap tensors_;
};

}  // namespace cupola::dictionary::testing

#endif  // CUPOLA_TESTS_DICTIONARY_NAIVE_DICTIONARY_H_
