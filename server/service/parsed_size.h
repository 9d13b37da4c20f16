#ifndef CUPOLA_SERVER_SERVICE_PARSED_SIZE_H_
#define CUPOLA_SERVER_SERVICE_PARSED_SIZE_H_

#include <cstdint>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/zero_copy_stream.h"

namespace cupola::service {

// What one message takes by itself, at most, with its place in an array.
inline constexpr int64_t kParsedMessageBytes = 384;

// An upper bound of the memory that a message of this type will take when these
// bytes are parsed as one: two bytes on the wire can be an object of hundreds.
// Reads the bytes once and allocates nothing. Bytes that are no such message
// are counted up to where that shows, which is where parsing ends, too.
int64_t ParsedSize(google::protobuf::io::ZeroCopyInputStream* bytes,
                   const google::protobuf::Descriptor* type);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_PARSED_SIZE_H_
