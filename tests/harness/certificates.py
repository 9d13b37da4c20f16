"""Certificates for servers and clients under test, made by openssl."""

import pathlib
import subprocess


class Authority:
    """A certificate authority in `folder`: `ca`, and what `issue` makes."""

    def __init__(self, folder, name="Test CA"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.key = self.folder / "ca.pem", self.folder / "ca.key"
        _openssl(
            *("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes").split(),
            *("-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", self.key, "-out", self.ca),
        )

    def issue(self, name, serial=1):
        """(certificate, key) of `name`, which is also localhost."""
        key, request = self.folder / f"{name}.key", self.folder / f"{name}.csr"
        certificate = self.folder / f"{name}.pem"
        extensions = self.folder / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        _openssl(
            *("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes").split(),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-days", "2"),
            *("-CA", self.ca, "-CAkey", self.key, "-set_serial", str(serial)),
            *("-extfile", extensions, "-out", certificate),
        )
        return certificate, key


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
