#include "tests/stress/same_answer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cupola/v1/common.pb.h"
#include "cupola/v1/tensor.pb.h"

namespace cupola::testing {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr double kTolerance = 5e-5;

template <typename T>
std::vector<T> Numbers(const std::string& data) {
  std::vector<T> numbers(data.size() / sizeof(T));
  std::memcpy(numbers.data(), data.data(), numbers.size() * sizeof(T));
  return numbers;
}

bool Near(double a, double b, double scale) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= kTolerance * scale;
}

template <typename T>
bool AllNear(const std::string& a, const std::string& b) {
  if (a.size() != b.size()) return false;
  const std::vector<T> left = Numbers<T>(a), right = Numbers<T>(b);
  double scale = 0;
  for (const T value : left) {
    if (std::isfinite(value)) {
      scale = std::max<double>(scale, std::abs(value));
    }
  }
  for (size_t i = 0; i < left.size(); ++i) {
    if (!Near(left[i], right[i], scale)) return false;
  }
  return true;
}

bool SameTensor(const v1::Tensor& a, const v1::Tensor& b) {
  if (a.dtype() != b.dtype() ||
      !std::equal(a.shape().begin(), a.shape().end(), b.shape().begin(),
                  b.shape().end())) {
    return false;
  }
  if (a.dtype() == v1::FLOAT32) return AllNear<float>(a.data(), b.data());
  if (a.dtype() == v1::FLOAT64) return AllNear<double>(a.data(), b.data());
  return a.data() == b.data();
}

std::string Within(const FieldDescriptor* field, const std::string& inner) {
  return inner.empty() ? "" : absl::StrCat(field->name(), ".", inner);
}

std::string FieldDifference(const Message& a, const Message& b,
                            const FieldDescriptor* field) {
  const auto* reflection = a.GetReflection();
  const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  if (field->is_repeated()) {
    const int size = reflection->FieldSize(a, field);
    if (size != reflection->FieldSize(b, field)) return field->name();
    if (is_message) {
      for (int i = 0; i < size; ++i) {
        const std::string inner =
            Difference(reflection->GetRepeatedMessage(a, field, i),
                       reflection->GetRepeatedMessage(b, field, i));
        if (!inner.empty()) return Within(field, inner);
      }
      return "";
    }
  } else if (is_message) {
    if (reflection->HasField(a, field) != reflection->HasField(b, field)) {
      return field->name();
    }
    return Within(field, Difference(reflection->GetMessage(a, field),
                                    reflection->GetMessage(b, field)));
  } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_FLOAT) {
    const double left = reflection->GetFloat(a, field);
    return Near(left, reflection->GetFloat(b, field), std::abs(left) + 1)
               ? ""
               : field->name();
  } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
    const double left = reflection->GetDouble(a, field);
    return Near(left, reflection->GetDouble(b, field), std::abs(left) + 1)
               ? ""
               : field->name();
  }
  // Alone in a message of its own, so that one comparison does for all types.
  std::unique_ptr<Message> left(a.New()), right(a.New());
  left->CopyFrom(a);
  right->CopyFrom(b);
  for (int i = 0; i < a.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* other = a.GetDescriptor()->field(i);
    if (other == field) continue;
    reflection->ClearField(left.get(), other);
    reflection->ClearField(right.get(), other);
  }
  return left->SerializeAsString() == right->SerializeAsString()
             ? ""
             : field->name();
}

}  // namespace

std::string Difference(const Message& a, const Message& b) {
  if (a.GetDescriptor() == v1::Tensor::descriptor()) {
    return SameTensor(dynamic_cast<const v1::Tensor&>(a),
                      dynamic_cast<const v1::Tensor&>(b))
               ? ""
               : "data";
  }
  const bool provenance = a.GetDescriptor() == v1::Provenance::descriptor();
  for (int i = 0; i < a.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = a.GetDescriptor()->field(i);
    if (provenance &&
        (field->name() == "seconds" || field->name() == "from_cache" ||
         field->name() == "estimate")) {
      continue;
    }
    std::string difference = FieldDifference(a, b, field);
    if (!difference.empty()) return difference;
  }
  return "";
}

}  // namespace cupola::testing
