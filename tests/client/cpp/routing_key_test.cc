#include "client/cpp/routing_key.h"

#include <string>

#include "cupola/v1/analysis.pb.h"
#include "gtest/gtest.h"

namespace cupola {
namespace {

v1::FeaturesRequest Request(const std::string& text) {
  v1::FeaturesRequest request;
  request.set_dictionary("d");
  request.mutable_prompts()->add_prompts()->set_text(text);
  return request;
}

TEST(RoutingKeyTest, EqualRequestsShareAKey) {
  EXPECT_EQ(RoutingKey(Request("a")), RoutingKey(Request("a")));
  EXPECT_NE(RoutingKey(Request("a")), RoutingKey(Request("b")));
  EXPECT_EQ(RoutingKey(Request("a")).size(), 16u);
}

TEST(RoutingKeyTest, IsFnv1a) {
  // The hash of no bytes is the offset basis.
  EXPECT_EQ(RoutingKey(v1::FeaturesRequest()), "cbf29ce484222325");
}

}  // namespace
}  // namespace cupola
