#ifndef CUPOLA_SERVER_HTTP_OPENAPI_H_
#define CUPOLA_SERVER_HTTP_OPENAPI_H_

#include <string>

namespace cupola::http {

// The JSON API in OpenAPI 3.0, made from the same descriptors that answer it:
// a path for every method that JsonApi::Find finds, a schema for every message.
std::string OpenApi();

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_OPENAPI_H_
