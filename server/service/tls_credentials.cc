#include "server/service/tls_credentials.h"

#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpc/grpc.h"
#include "grpc/grpc_security.h"

namespace cupola::service {
namespace {

class Credentials final : public grpc::ServerCredentials {
 public:
  explicit Credentials(std::shared_ptr<tls::TlsFiles> files)
      : files_(std::move(files)) {
    const auto request =
        files_->Current()->client_ca.empty()
            ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
            : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
    // Takes over the options.
    credentials_ = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            request, &Credentials::Fetch, this));
  }
  ~Credentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(
      const std::shared_ptr<grpc::AuthMetadataProcessor>& /*none*/) override {}

 private:
  int AddPortToServer(const std::string& address,
                      grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  // Called by gRPC before each handshake; it keeps what it got last.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* data, grpc_ssl_server_certificate_config** config) {
    auto* self = static_cast<Credentials*>(data);
    absl::MutexLock lock(&self->mu_);
    std::shared_ptr<const tls::TlsPems> pems = self->files_->Current();
    if (pems == self->given_) {
      return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    }
    const grpc_ssl_pem_key_cert_pair pair = {pems->key.c_str(),
                                             pems->certificate.c_str()};
    // gRPC wants authorities also where it asks for no certificate.
    *config = grpc_ssl_server_certificate_config_create(
        pems->client_ca.empty() ? pems->certificate.c_str()
                                : pems->client_ca.c_str(),
        &pair, 1);
    self->given_ = std::move(pems);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const std::shared_ptr<tls::TlsFiles> files_;
  grpc_server_credentials* credentials_ = nullptr;
  absl::Mutex mu_;
  std::shared_ptr<const tls::TlsPems> given_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(
    std::shared_ptr<tls::TlsFiles> files) {
  return std::make_shared<Credentials>(std::move(files));
}

}  // namespace cupola::service
