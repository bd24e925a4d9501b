"""Every secret of a deployment, made once, each in a file of its own (0600) in one folder: `sluice prepare secrets FOLDER`.

    codec.keys · document.keys            what Temporal's payloads and the evidence texts are encrypted with
    verdict.keys · webhook.keys           what verdicts on suspects, and secrets of webhooks, are encrypted with
    transfer.key · model-signing.pem      sign manifests of what transfer workers seal, and plaintext published at `open`
    keyring.passphrase                    of the local keyring, where no key service is used
    postgres-admin.password               of the database server's own administrator; only `sluice prepare postgres` reads it
    postgres-records.password             of the user that owns the records
    postgres-custody.password             of custody's user: reads the records, writes its own leaves and envelopes, owns custody's database
    postgres-temporal.password            of Temporal's user
    s3.credentials · s3.json              an AWS credentials file, and the same identity for a SeaweedFS server
    openbao.seal                          what OpenBao unseals itself with (32 bytes)
    openbao.crt · openbao.key · openbao-ca.pem   its certificate, made by an authority that is forgotten at once
    none                                  nothing: what an optional secret is in `docker-compose.yml` while there is none

Nothing existing is touched, so that a second run adds only what is missing.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from artifacts.signing import SigningKey
from infra.codec import write_new_keys
from infra.provision import new_pem, write_private

#: Names under which OpenBao is reached: by compose, by the chart, on this machine.
OPENBAO_NAMES = ("openbao", "localhost", "127.0.0.1")
_PASSWORDS = (
    "postgres-admin",
    "postgres-records",
    "postgres-custody",
    "postgres-temporal",
)
_CERTIFICATE_LASTS = timedelta(days=825)


def new_secrets(folder: Path, *, openbao_names: Iterable[str] = OPENBAO_NAMES) -> list[str]:
    """Make what is missing; the names of the files that were made.

    Args:
        folder: made with mode 0700.
        openbao_names: host names and addresses for OpenBao's certificate.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    makers: dict[str, Callable[[Path], None]] = {
        "codec.keys": write_new_keys,
        "document.keys": write_new_keys,
        "verdict.keys": write_new_keys,
        "webhook.keys": write_new_keys,
        "transfer.key": lambda path: write_private(path, _line(SigningKey.generate().secret_string())),
        "model-signing.pem": lambda path: write_private(path, new_pem()),
        "keyring.passphrase": lambda path: write_private(path, _line(secrets.token_urlsafe(32))),
        "none": lambda path: write_private(path, b""),
        "openbao.seal": lambda path: write_private(path, secrets.token_bytes(32)),
        "s3.credentials": lambda path: write_private(path, s3_credentials("sluice", secrets.token_hex(20))),
    }
    makers |= {
        f"{name}.password": lambda path: write_private(path, _line(secrets.token_urlsafe(24)))
        for name in _PASSWORDS
    }
    made = [name for name in makers if not (folder / name).exists()]
    makers["s3.json"] = lambda path: write_private(path, _s3_identities(folder / "s3.credentials"))
    made += [] if (folder / "s3.json").exists() else ["s3.json"]
    for name in made:
        makers[name](folder / name)
    if not (folder / "openbao.crt").exists():
        authority, certificate, key = _certificate(list(openbao_names))
        for name, data in (
            ("openbao-ca.pem", authority),
            ("openbao.key", key),
            ("openbao.crt", certificate),
        ):
            (folder / name).unlink(missing_ok=True)  # half of an earlier run
            write_private(folder / name, data)
            made.append(name)
    return made


def s3_credentials(key_id: str, secret: str) -> bytes:
    """An AWS credentials file with one profile."""
    return f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n".encode()


def _s3_identities(credentials: Path) -> bytes:
    """The identity of an AWS credentials file, in SeaweedFS's form."""
    words = dict(
        line.split(" = ", 1) for line in credentials.read_text(encoding="utf-8").splitlines() if " = " in line
    )
    keys = {"accessKey": words["aws_access_key_id"], "secretKey": words["aws_secret_access_key"]}
    identity = {
        "name": "sluice",
        "credentials": [keys],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return json.dumps({"identities": [identity]}, indent=1).encode() + b"\n"


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def _certificate(names: list[str]) -> tuple[bytes, bytes, bytes]:
    """An authority's certificate, a server's certificate by it, and the server's key; all PEM."""
    now = datetime.now(UTC)
    root, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sluice deployment authority")])

    def begin(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + _CERTIFICATE_LASTS)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False
            )
        )

    usage = {
        "content_commitment": False, "key_encipherment": False, "data_encipherment": False, "key_agreement": False,
        "encipher_only": False, "decipher_only": False,
    }  # fmt: skip
    authority = (
        begin(issuer, root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
        .sign(root, hashes.SHA256())
    )
    certificate = (
        begin(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), server)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage), critical=True
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_san(name) for name in names]), critical=False)
        .sign(root, hashes.SHA256())
    )
    key = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    return authority.public_bytes(pem), certificate.public_bytes(pem), key


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
