#include "server/tls/tls_files.h"

#include <utility>

#include "openssl/err.h"
#include "openssl/pem.h"
#include "openssl/x509.h"
#include "server/files/small_file.h"

namespace cupola::tls {
namespace {

template <typename T, void (*kFree)(T*)>
struct Freer {
  void operator()(T* object) const { kFree(object); }
};
using Certificate = std::unique_ptr<X509, Freer<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;
using Reader = std::unique_ptr<BIO, Freer<BIO, BIO_free_all>>;

Reader Read(const std::string& pem) {
  return Reader(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// A server has nobody to ask for a pass phrase.
int NoPassPhrase(char*, int, int, void*) { return 0; }

// The first certificate; null: there is none, or a later one is broken.
Certificate ReadChain(const std::string& pem) {
  const Reader reader = Read(pem);
  Certificate first(
      PEM_read_bio_X509(reader.get(), nullptr, NoPassPhrase, nullptr));
  while (first != nullptr) {
    const Certificate next(
        PEM_read_bio_X509(reader.get(), nullptr, NoPassPhrase, nullptr));
    if (next != nullptr) continue;
    const auto error = ERR_peek_last_error();
    if (ERR_GET_REASON(error) != PEM_R_NO_START_LINE) first.reset();
    break;
  }
  ERR_clear_error();
  return first;
}

absl::StatusOr<TlsPems> ReadAll(const TlsPaths& paths) {
  TlsPems pems;
  const auto read = [](const std::string& path,
                       std::string* bytes) -> absl::Status {
    if (path.empty()) return absl::OkStatus();
    absl::StatusOr<std::string> read = files::ReadSmallFile(path);
    if (read.ok()) *bytes = *std::move(read);
    return read.status();
  };
  absl::Status status = read(paths.certificate, &pems.certificate);
  status.Update(read(paths.key, &pems.key));
  status.Update(read(paths.client_ca, &pems.client_ca));
  // An empty file of authorities must not mean that none is asked for.
  if (status.ok() && !paths.client_ca.empty() && pems.client_ca.empty()) {
    status = absl::InvalidArgumentError("the client CA file is empty");
  }
  status.Update(status.ok() ? CheckPems(pems) : absl::OkStatus());
  if (!status.ok()) return status;
  return pems;
}

}  // namespace

absl::Status CheckPems(const TlsPems& pems) {
  const Certificate certificate = ReadChain(pems.certificate);
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        "the TLS certificate is not one; accepted: PEM");
  }
  const Reader reader = Read(pems.key);
  const Key key(
      PEM_read_bio_PrivateKey(reader.get(), nullptr, NoPassPhrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        "the TLS key is not one; accepted: PEM without a pass phrase");
  }
  const bool match = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!match) {
    return absl::InvalidArgumentError(
        "the TLS certificate is another key's than the one given");
  }
  if (!pems.client_ca.empty() && ReadChain(pems.client_ca) == nullptr) {
    return absl::InvalidArgumentError(
        "the TLS client CA is no certificate; accepted: PEM");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<TlsFiles>> LoadTlsFiles(
    const TlsPaths& paths, TlsFiles::Report report) {
  return TlsFiles::Load(
      {paths.certificate, paths.key, paths.client_ca},
      [paths] { return ReadAll(paths); }, std::move(report));
}

}  // namespace cupola::tls
