"""Keys of the sandbox and its clients: event signatures, temporary service accounts, TLS certificates."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

_PEM, _PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
_OPEN = serialization.NoEncryption()


class SendGridSigner:
    """Signs event batches as SendGrid does: ECDSA P-256 with SHA-256 over the timestamp followed by the raw body."""

    def __init__(self, path: Path | None = None) -> None:
        """Use the key in `path`, which is made on first use; without a path, a key for this run."""
        if path and path.exists():
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            if path:
                _write_secret(path, key.private_bytes(_PEM, _PKCS8, _OPEN))
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the event key is not an elliptic-curve key")
        self._key = key

    @property
    def public_key(self) -> str:
        """The public key as SendGrid shows it: base64 of the DER form, on one line."""
        der = serialization.PublicFormat.SubjectPublicKeyInfo
        return base64.b64encode(self._key.public_key().public_bytes(serialization.Encoding.DER, der)).decode()

    @property
    def telnyx(self) -> TelnyxSigner:
        """A signer for Telnyx. Its key is derived from this one, so that there is one key file."""
        secret = self._key.private_numbers().private_value.to_bytes(32, "big")
        return TelnyxSigner(hashlib.sha256(secret).digest())

    def sign(self, timestamp: str, body: bytes) -> str:
        return base64.b64encode(self._key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()


class TelnyxSigner:
    """Signs webhook calls as Telnyx does: Ed25519 over the timestamp, a bar and the raw body."""

    def __init__(self, secret: bytes) -> None:
        """`secret` has 32 bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(secret)

    @property
    def public_key(self) -> str:
        """The public key as Telnyx shows it: base64 of its 32 bytes."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, timestamp: str, body: bytes) -> str:
        return base64.b64encode(self._key.sign(timestamp.encode() + b"|" + body)).decode()


def write_service_account(path: Path, url: str, project: str = "sandbox") -> Path:
    """Write a Google service-account file with a new key. Its token endpoint is the sandbox at `url`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": os.urandom(20).hex(),
        "private_key": key.private_bytes(_PEM, _PKCS8, _OPEN).decode(),
        "client_email": f"sandbox@{project}.iam.gserviceaccount.com",
        "client_id": "1",
        "auth_uri": f"{url}/auth",
        "token_uri": f"{url}/token",
        "universe_domain": "googleapis.com",
    }
    _write_secret(path, json.dumps(account, indent=2).encode())
    return path


_CERTIFICATE_SIGNING = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def write_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Make a certificate authority and a certificate for localhost. Returns the paths of authority, certificate and key."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sandbox authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    authority = (
        _builder(issuer, issuer, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .add_extension(_CERTIFICATE_SIGNING, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())  # Python 3.13 asks for it
    certificate = (
        _builder(subject, issuer, key)
        .add_extension(names, critical=False)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "authority.pem", folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(authority.public_bytes(_PEM))
    paths[1].write_bytes(certificate.public_bytes(_PEM))
    _write_secret(paths[2], key.private_bytes(_PEM, _PKCS8, _OPEN))
    return paths


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(time.time(), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
    )


def _write_secret(path: Path, data: bytes) -> None:
    """Write atomically: several processes may make the same file at once, and each must read a complete one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123  sets the mode at creation
        file.write(data)
    draft.replace(path)
