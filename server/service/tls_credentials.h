#ifndef CUPOLA_SERVER_SERVICE_TLS_CREDENTIALS_H_
#define CUPOLA_SERVER_SERVICE_TLS_CREDENTIALS_H_

#include <memory>

#include "grpcpp/security/server_credentials.h"
#include "server/tls/tls_files.h"

namespace cupola::service {

// TLS for a gRPC port, with the certificates that `files` has when a client
// connects. Where there is a client CA, clients must have a certificate of its.
//
// gRPC's own watcher of files (FileWatcherCertificateProvider) drops the old
// certificates before it knows that the new ones are good; so this asks for
// them itself, through gRPC core's hook for each handshake. Keep it alive for
// as long as the server.
std::shared_ptr<grpc::ServerCredentials> TlsCredentials(
    std::shared_ptr<tls::TlsFiles> files);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_TLS_CREDENTIALS_H_
