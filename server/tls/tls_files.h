#ifndef CUPOLA_SERVER_TLS_TLS_FILES_H_
#define CUPOLA_SERVER_TLS_TLS_FILES_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

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

// Certificates that a server presents, read again when their files change: a
// renewed certificate serves the next connection, while those that stand go on.
// New files that do not fit together, as when only one of two has been
// replaced, are passed over, with a complaint, and the old ones stay.
// Thread-safe.
class TlsFiles {
 public:
  using Complain = std::function<void(const absl::Status&)>;

  // INVALID_ARGUMENT: a file that cannot be read, or CheckPems.
  static absl::StatusOr<std::shared_ptr<TlsFiles>> Load(TlsPaths paths,
                                                        Complain complain);

  // The newest good contents. Asks the file system at most once a second; the
  // same object while nothing has changed.
  std::shared_ptr<const TlsPems> Current();

 private:
  TlsFiles(TlsPaths paths, Complain complain);

  const TlsPaths paths_;
  const Complain complain_;
  absl::Mutex mu_;
  absl::Time next_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::string stamp_ ABSL_GUARDED_BY(mu_);  // of the files when last read
  std::shared_ptr<const TlsPems> pems_ ABSL_GUARDED_BY(mu_);
};

// Tells whether a file has changed: differs between two states of it, also when
// it is missing.
std::string FileStamp(const std::string& path);

// The bytes of a small file. INVALID_ARGUMENT: it cannot be read, or holds more
// than 1 MiB.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

}  // namespace cupola::tls

#endif  // CUPOLA_SERVER_TLS_TLS_FILES_H_
