"""The process's own certificate: what is taken when its files change, and who is told when it ends."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from recoup_local.ca import LocalCa
from services._mesh.settings import TlsSettings
from services._mesh.tls import CertificateFiles
from tests.support.mesh import until


def test_the_end_of_the_certificate_in_force_is_told(tmp_path: Path) -> None:
    """An alert rests on it: of a pair that isn't taken nothing is told."""
    ca, folder = LocalCa(tmp_path / "ca"), tmp_path / "pricing"
    issued = ca.issue("pricing", folder, dns=("pricing",))
    files = CertificateFiles(TlsSettings(ca=ca.cert_file, cert=issued.cert, key=issued.key, check_seconds=0.001))
    told: list[float] = []
    files.tell_end(told.append)
    assert told == [x509.load_pem_x509_certificate(issued.cert.read_bytes()).not_valid_after_utc.timestamp()]
    key = issued.key.read_bytes()
    ca.issue("pricing", folder, dns=("pricing",))
    new = issued.key.read_bytes()
    issued.key.write_bytes(key)
    files.refresh()
    assert (files.generation, len(told)) == (1, 1)
    issued.key.write_bytes(new)
    until(lambda: files.refresh() == 2 or None)
    assert len(told) == 2
