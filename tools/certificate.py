"""Makes an authority and a certificate of this machine for a gateway on it.

    python tools/certificate.py DIR    writes DIR/ca.crt, DIR/tls.crt and DIR/tls.key

The key of the authority is not kept: it signs nothing else, so a client that trusts it trusts this
one certificate. For trying HTTPS out; production has an authority of its own.
"""

import datetime
import ipaddress
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# What a client on the same machine calls it.
NAMES = [
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
]
LASTS = datetime.timedelta(days=30)
# Another machine's clock may be behind ours.
BEFORE = datetime.timedelta(hours=1)


def make(directory, names=NAMES):
    """Writes the three files, and returns their paths by name. A gateway that watches the directory
    takes them up: each file is moved into its place, the key last."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = (
        _certificate("patgate: authority of this machine", authority_key.public_key())
        .issuer_name(_name("patgate: authority of this machine"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_id(authority_key), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    signed = (
        _certificate("localhost", key.public_key())
        .issuer_name(authority.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_id(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = {
        "ca.crt": authority.public_bytes(pem),
        "tls.crt": signed.public_bytes(pem),
        "tls.key": key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for name, content in files.items():
        _replace(directory / name, content, mode=0o600 if name.endswith(".key") else 0o644)
    return {name: directory / name for name in files}


def _certificate(name, public_key):
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + LASTS)
    )


def _name(common):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _id(key):
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _usage(**wanted):
    """OpenSSL 3, and Python from 3.13, ask for this extension in an authority."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in every.split()})


def _replace(path, content, mode):
    """Never shows a file half written, nor a key to others."""
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    beside.rename(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: certificate.py DIR")
    for path in make(sys.argv[1]).values():
        print(path)
