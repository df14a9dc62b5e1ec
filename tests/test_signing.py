"""Signed exports: what openssl and ssh-keygen make is read, what was changed is refused."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgehmn import signing
from edgehmn.errors import DependencyError, InvalidFileError, UsageError
from edgehmn.exported import Export, holds_only_an_export
from edgehmn.signing import SigningKey, fingerprint, read_public_key, sign_export, verify_export
from tests.command_line import edgehmn

pytest.importorskip("cryptography")
Copy = Callable[[Path], Path]
NEEDED = ("openssl", "ssh-keygen")
pytestmark = pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"{' and '.join(NEEDED)} make the keys")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys as the standard tools make them: a.pem, a.pub.pem, b in the form of OpenSSH, and some that will not do."""
    folder = tmp_path_factory.mktemp("keys")
    for command in (
        "openssl genpkey -algorithm ed25519 -out a.pem",
        "openssl pkey -in a.pem -pubout -out a.pub.pem",
        "ssh-keygen -q -t ed25519 -N '' -C somebody -f b",
        "openssl genpkey -algorithm x25519 -out other.pem",
        "openssl pkey -in other.pem -pubout -out other.pub.pem",
        "openssl pkey -in a.pem -aes256 -passout pass:secret -out locked.pem",
        "ssh-keygen -q -t ed25519 -N secret -f locked",
    ):
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def signed(tiny_export: Path, copy_of: Copy, keys: Path) -> Path:
    folder = copy_of(tiny_export)
    sign_export(folder, SigningKey(keys / "a.pem"))
    return folder


def test_a_signature_is_verified(signed: Path, keys: Path) -> None:
    state = verify_export(Export.open(signed), keys / "a.pub.pem")
    assert state.checked and state.trusted and state.fingerprint == fingerprint(read_public_key(keys / "a.pub.pem"))
    facts = edgehmn("inspect", signed, "--json").result["signature"]
    assert facts == {"signed": True, "fingerprint": state.fingerprint, "checked": True, "trusted": False}
    assert edgehmn("inspect", signed, "--trust", keys / "a.pub.pem", "--json").result["signature"]["trusted"]
    done = edgehmn("validate", signed, "--runtime", "host", "--tokens", "20", "-q")
    assert done.code == 0 and "not checked against a trusted key" in done.out


def test_keys_of_both_tools(tiny_export: Path, copy_of: Copy, keys: Path) -> None:
    folder = copy_of(tiny_export)
    found = sign_export(folder, SigningKey(keys / "b"))
    printed = subprocess.run(["ssh-keygen", "-l", "-f", keys / "b.pub"], capture_output=True, text=True, check=True)
    assert found == printed.stdout.split()[1]
    assert verify_export(Export.open(folder), keys / "b.pub").trusted


def test_openssl_verifies_it_too(signed: Path, keys: Path, tmp_path: Path) -> None:
    signature = json.loads((signed / "manifest.sig").read_text("utf-8"))["signature"]
    (tmp_path / "raw").write_bytes(base64.b64decode(signature))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", keys / "a.pub.pem", "-rawin"]
    files = ["-in", signed / "manifest.json", "-sigfile", tmp_path / "raw"]
    assert subprocess.run([*command, *files], capture_output=True).returncode == 0


def test_signing_twice_gives_the_same_bytes(signed: Path, keys: Path) -> None:
    first = (signed / "manifest.sig").read_bytes()
    sign_export(signed, SigningKey(keys / "a.pem"))
    assert (signed / "manifest.sig").read_bytes() == first


def test_a_tuned_export_is_signed_anew_or_said_to_be_unsigned(signed: Path, keys: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question. " * 40, "utf-8")
    few = ("--data", text, "--budget", "1", "--tokens", "40", "--method", "random")
    done = edgehmn("tune", signed, *few, "-o", tmp_path / "new")
    assert done.code == 0 and "not signed" in done.out and not (tmp_path / "new" / "manifest.sig").exists()
    done = edgehmn("tune", signed, *few, "-o", tmp_path / "newer", "--sign", keys / "a.pem", "--json")
    key = fingerprint(read_public_key(keys / "a.pub.pem"))
    assert done.result["signed_by"] == key
    assert verify_export(Export.open(tmp_path / "newer"), keys / "a.pub.pem").trusted
    assert edgehmn("tune", signed, *few, "--sign", keys / "a.pem").code == 2


def test_an_unsigned_export(tiny_export: Path, keys: Path) -> None:
    assert edgehmn("inspect", tiny_export, "--json").result["signature"]["signed"] is False
    for command in ("inspect", "validate", "emulate"):
        done = edgehmn(command, tiny_export, "--trust", keys / "a.pub.pem")
        assert (done.code, done.out) == (4, "") and "not signed" in done.err, done


def test_another_key_is_refused(signed: Path, keys: Path) -> None:
    done = edgehmn("inspect", signed, "--trust", keys / "b.pub")
    assert done.code == 4 and fingerprint(read_public_key(keys / "b.pub")) in done.err


def test_a_changed_manifest_is_refused(signed: Path) -> None:
    """Even if it is one that says the same."""
    path = signed / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")
    for command in ("inspect", "validate", "emulate"):
        done = edgehmn(command, signed)
        assert (done.code, done.out) == (4, "") and "manifest.sig" in done.err, done


def test_a_changed_artefact_is_refused(signed: Path, keys: Path) -> None:
    path = signed / "model.ehmn"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert edgehmn("inspect", signed, "--trust", keys / "a.pub.pem").code == 4


def test_flipped_bits_of_a_signature_are_found(signed: Path, keys: Path) -> None:
    """Found, or in what does not count, such as white space: then it is the same signature."""
    export, path = Export.open(signed), signed / "manifest.sig"
    sound, good = path.read_bytes(), verify_export(Export.open(signed))
    refused = 0
    for bit in range(0, 8 * len(sound), 3):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            assert verify_export(export) == good
        except InvalidFileError:
            refused += 1
    assert refused > 2 * len(sound)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "[" * 10_000, '{"public_key": 3}', "x" * 20_000])
def test_a_signature_that_is_none(text: str, signed: Path) -> None:
    (signed / "manifest.sig").write_text(text, "utf-8")
    with pytest.raises(InvalidFileError, match=r"manifest\.sig"):
        verify_export(Export.open(signed))


def test_a_signature_that_is_a_link_or_a_folder(signed: Path) -> None:
    path = signed / "manifest.sig"
    elsewhere = path.rename(signed.parent / "elsewhere")
    for make in (lambda: path.symlink_to(elsewhere), lambda: path.symlink_to("nowhere"), path.mkdir):
        make()
        with pytest.raises(InvalidFileError, match=r"manifest\.sig"):
            verify_export(Export.open(signed))
        path.unlink() if path.is_symlink() else path.rmdir()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "no such file"), ("other.pem", "another kind"), ("locked.pem", "passphrase"),
        ("locked", "passphrase"), ("a.pub.pem", "no private key"), ("b.pub", "no private key"),
    ],
)  # fmt: skip
def test_what_is_no_private_key(name: str, words: str, keys: Path) -> None:
    with pytest.raises(UsageError, match=words):
        SigningKey(keys / name)


@pytest.mark.parametrize("name", ["nothing", "other.pub.pem", "a.pem", "b"])
def test_what_is_no_public_key(name: str, signed: Path, keys: Path) -> None:
    done = edgehmn("inspect", signed, "--trust", keys / name)
    assert (done.code, done.out) == (2, "") and name in done.err, done


def test_only_an_export_can_be_trusted(signed: Path, keys: Path) -> None:
    assert edgehmn("inspect", signed / "model.ehmn", "--trust", keys / "a.pub.pem").code == 2


def test_a_signed_export_may_be_replaced(signed: Path) -> None:
    assert holds_only_an_export(signed)


def test_without_the_library(signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    state = verify_export(Export.open(signed))
    assert state.fingerprint and not state.checked and "not verified" in state.sentence()
    for attempt in (lambda: SigningKey(keys / "a.pem"), lambda: verify_export(Export.open(signed), keys / "a.pub.pem")):
        with pytest.raises(DependencyError, match=r"edgehmn\[sign\]"):
            attempt()


def test_the_commands_of_the_documentation_are_those_of_this_test(keys: Path) -> None:
    assert signing.__doc__ is not None
    for command in ("openssl genpkey -algorithm ed25519 -out key.pem", "openssl pkey -in key.pem -pubout"):
        assert command in signing.__doc__
