#ifndef CUPOLA_TESTS_STRESS_REQUEST_SEEDS_H_
#define CUPOLA_TESTS_STRESS_REQUEST_SEEDS_H_

#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/message.h"

namespace cupola::testing {

// A method of the server, and good requests to it for a catalog of the models
// and dictionaries that WriteSeedCatalog writes.
struct SeededMethod {
  std::string path;  // "/cupola.v1.Analysis/GetFeatures"
  // Its answer is the same each time, but for what Provenance tells of how it
  // came about.
  bool repeatable = false;
  // Of the answer's messages.
  const google::protobuf::Message* answer = nullptr;
  // Its requests are streams of messages.
  bool streamed = false;
  // At least one; one without fields where nothing better is known of it. Where
  // it is streamed, the messages of one good stream.
  std::vector<std::unique_ptr<google::protobuf::Message>> seeds;
};

// Every method of every service of cupola.v1: what is added to a proto file
// that is known here is tried too.
std::vector<SeededMethod> SeededMethods();

// Writes a model "tiny", three dictionaries of it and one that is broken into
// `folder`; the catalog's path.
std::string WriteSeedCatalog(const std::string& folder);

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_STRESS_REQUEST_SEEDS_H_
