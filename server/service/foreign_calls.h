#ifndef CUPOLA_SERVER_SERVICE_FOREIGN_CALLS_H_
#define CUPOLA_SERVER_SERVICE_FOREIGN_CALLS_H_

#include <memory>

#include "grpcpp/support/server_interceptor.h"
#include "server/service/access.h"

namespace cupola::service {

// Asks for a token in calls to services that are not Cupola's own, whose
// handlers do not: gRPC's reflection. Health is free. A call without a good
// token is ended at once with Access's own error, and has its requests emptied,
// so that nothing is told by a handler that has one already. (gRPC's own place
// for such a check, an AuthMetadataProcessor, ends a process that listens
// without TLS.)
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
GuardForeignCalls(Access* access);  // outlives the server

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_FOREIGN_CALLS_H_
