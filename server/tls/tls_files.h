#ifndef CUPOLA_SERVER_TLS_TLS_FILES_H_
#define CUPOLA_SERVER_TLS_TLS_FILES_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/files/watched_files.h"

namespace cupola::tls {

// PEM files. Without `client_ca` clients need no certificate.
struct TlsPaths {
  std::string certificate;  // the server's, then those that lead to its root
  std::string key;          // without a pass phrase
  std::string client_ca;    // who may sign clients' certificates
};

// What the files hold.
struct TlsPems {
  std::string certificate, key, client_ca;
};

// Not OK: INVALID_ARGUMENT that says which of the three is wrong and how. The
// certificate must be the key's.
absl::Status CheckPems(const TlsPems& pems);

// Certificates that a server presents: a renewed one serves the next
// connection, while those that stand go on.
using TlsFiles = files::WatchedFiles<TlsPems>;

// INVALID_ARGUMENT: a file that cannot be read, or CheckPems.
absl::StatusOr<std::shared_ptr<TlsFiles>> LoadTlsFiles(const TlsPaths& paths,
                                                       TlsFiles::Report report);

}  // namespace cupola::tls

#endif  // CUPOLA_SERVER_TLS_TLS_FILES_H_
