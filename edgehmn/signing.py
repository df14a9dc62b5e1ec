"""Signed exports: an Ed25519 signature over the bytes of manifest.json, which holds the SHA-256 of every artefact.

It lies beside the manifest as manifest.sig, a JSON object with the public key (raw, base64), its fingerprint, as
`ssh-keygen -l` prints it, and the signature (base64). Keys are those of the standard tools:

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out key.pub.pem

or `ssh-keygen -t ed25519`. Private keys are read as PKCS8 PEM or as an OpenSSH file, without a passphrase; public ones
as PEM or as an OpenSSH line.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgehmn.errors import DependencyError, InvalidFileError, UsageError
from edgehmn.exported import MANIFEST, SIGNATURE, Export, write_json
from edgehmn.files import read_bytes

SCHEMA = 1
ALGORITHM = "ed25519"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
MAX_FILE_BYTES = 1 << 14  # of a key or a signature
HOW_TO_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"


@dataclass(frozen=True)
class SignatureState:
    """What is known of the signature of an export. checked: whether the signature was verified at all, which needs the
    library; trusted: whether it is by the key that the user named."""

    fingerprint: str | None  # of the signer's public key; None: not signed
    checked: bool = False
    trusted: bool = False

    def sentence(self) -> str:
        if self.fingerprint is None:
            return "not signed"
        if self.trusted:
            return f"signed by {self.fingerprint}, the trusted key"
        if self.checked:
            return f"signed by {self.fingerprint}, not checked against a trusted key (--trust)"
        return f"says that {self.fingerprint} signed it, not verified: pip install 'edgehmn[sign]'"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        signed = self.fingerprint is not None
        return {"signed": signed, "fingerprint": self.fingerprint, "checked": self.checked, "trusted": self.trusted}


@dataclass(frozen=True)
class _Signature:
    public: bytes
    signature: bytes
    fingerprint: str


class SigningKey:
    """A private key, ready to sign."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError for a file that is no Ed25519 private key, or one with a passphrase, and DependencyError
        without the cryptography library."""
        self._key = _load_private(path, read_bytes(path, MAX_FILE_BYTES))

    @property
    def public(self) -> bytes:
        return bytes(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        return bytes(self._key.sign(data))


def sign_export(folder: Path, key: SigningKey) -> str:
    """Sign the manifest of an export folder as it lies there; returns the fingerprint of the public key."""
    signature = {
        "schema": SCHEMA,
        "algorithm": ALGORITHM,
        "fingerprint": fingerprint(key.public),
        "public_key": base64.b64encode(key.public).decode(),
        "signature": base64.b64encode(key.sign(read_bytes(folder / MANIFEST))).decode(),
    }
    write_json(folder / SIGNATURE, signature)
    return fingerprint(key.public)


def verify_export(export: Export, trust: Path | None = None) -> SignatureState:
    """Verify the signature of an export over the manifest that was read when it was opened.

    trust: a public key file; then there must be a valid signature by that key. Without it, a signature that is there is
    verified with the key that it brings, which shows damage but not who signed. Raises InvalidFileError for a wrong or
    missing signature, UsageError for a file that is no public key, DependencyError if `trust` is given and the
    cryptography library is not installed.
    """
    trusted = None if trust is None else read_public_key(trust)
    path = export.folder / SIGNATURE
    if not path.is_symlink() and not path.exists():
        if trust is not None:
            raise InvalidFileError(f"{export.folder}: is not signed, and --trust {trust} asks for a signature")
        return SignatureState(None)
    found = _read_signature(path)
    if trusted is not None and trusted != found.public:
        raise InvalidFileError(
            f"{path}: signed by {found.fingerprint}, not by the key of {trust} ({fingerprint(trusted)})"
        )
    try:
        _verify(path, found, export.manifest_bytes)
    except DependencyError:
        if trusted is not None:
            raise
        return SignatureState(found.fingerprint)
    return SignatureState(found.fingerprint, checked=True, trusted=trusted is not None)


def fingerprint(public: bytes) -> str:
    """SHA-256 of a raw public key in the form of OpenSSH."""
    parts = (b"ssh-ed25519", public)
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def read_public_key(path: Path) -> bytes:
    """The raw bytes of an Ed25519 public key, PEM or OpenSSH. Raises UsageError for anything else."""
    data = read_bytes(path, MAX_FILE_BYTES)
    serialization, ed25519 = _library()
    load = serialization.load_ssh_public_key if data.startswith(b"ssh-") else serialization.load_pem_public_key
    try:
        key = load(data)
    except Exception as e:  # the library raises many kinds for bytes that are no key
        raise UsageError(
            f"{path}: no public key ({type(e).__name__}); give a PEM or OpenSSH public key, from a private one: "
            "openssl pkey -in key.pem -pubout -out key.pub.pem"
        ) from e
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{path}: a public key of another kind than Ed25519; {HOW_TO_MAKE}")
    return bytes(key.public_bytes_raw())


def _load_private(path: Path, data: bytes) -> Any:
    serialization, ed25519 = _library()
    openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(data, password=None)
    except TypeError as e:  # what the library raises for a missing passphrase
        raise UsageError(f"{path}: has a passphrase; give a key without one, kept where only you can read it") from e
    except Exception as e:  # the library raises many kinds for bytes that are no key
        if "password" in str(e).lower():
            raise UsageError(f"{path}: has a passphrase; give a key without one") from e
        raise UsageError(f"{path}: no private key, PKCS8 PEM or OpenSSH ({type(e).__name__}); {HOW_TO_MAKE}") from e
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path}: a private key of another kind than Ed25519; {HOW_TO_MAKE}")
    return key


def _read_signature(path: Path) -> _Signature:
    if path.is_symlink() or not path.is_file():
        raise InvalidFileError(f"{path}: not a file; remove it, or export again with --sign")
    try:
        raw = json.loads(read_bytes(path, MAX_FILE_BYTES))
        public, signature = (base64.b64decode(raw[key], validate=True) for key in ("public_key", "signature"))
        known = (raw["schema"], raw["algorithm"]) == (SCHEMA, ALGORITHM)
        sound = len(public) == KEY_BYTES and len(signature) == SIGNATURE_BYTES
        if known and sound and raw["fingerprint"] == fingerprint(public):
            return _Signature(public, signature, raw["fingerprint"])
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as e:
        raise InvalidFileError(f"{path}: not a signature of an export ({type(e).__name__}); export again") from e
    raise InvalidFileError(f"{path}: not a signature of an export that this version reads; export again")


def _verify(path: Path, found: _Signature, data: bytes) -> None:
    from_library = _library()[1]
    from cryptography.exceptions import InvalidSignature

    try:
        from_library.Ed25519PublicKey.from_public_bytes(found.public).verify(found.signature, data)
    except (InvalidSignature, ValueError) as e:
        raise InvalidFileError(
            f"{path}: the signature does not belong to this manifest: one of them was changed; export again"
        ) from e


def _library() -> tuple[Any, Any]:
    """The parts of the cryptography library that are needed, imported late."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as e:
        raise DependencyError(f"cryptography cannot be imported ({e}); pip install 'edgehmn[sign]'") from e
    return serialization, ed25519
