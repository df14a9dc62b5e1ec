"""The committed inputs: for each target an archive of all that is needed to reach every edge that was ever reached,
with the inputs that once found a fault."""

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

from fuzz.programs import libfuzzer
from fuzz.targets import HERE

ARCHIVES = HERE / "corpus"


def read(target: str) -> dict[str, bytes]:
    """Names and inputs of a target's archive."""
    with tarfile.open(ARCHIVES / f"{target}.tar.xz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def write(target: str, inputs: dict[str, bytes]) -> None:
    """The same bytes for the same inputs."""
    ARCHIVES.mkdir(exist_ok=True)
    with tarfile.open(ARCHIVES / f"{target}.tar.xz", "w:xz", preset=9) as archive:
        for name, data in sorted(inputs.items(), key=lambda item: (len(item[1]), item[0])):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def unpack(target: str, folder: Path) -> Path:
    """The archive's inputs as files of FOLDER/corpus/TARGET, to which a run adds its own."""
    place = folder / "corpus" / target
    place.mkdir(parents=True, exist_ok=True)
    for name, data in read(target).items():
        (place / Path(name).name).write_bytes(data)
    return place


def minimise(target: str, folder: Path) -> int:
    """Put into the archive as few of the known inputs as have all their edges, and those kept for a fault. Returns how
    many there are then. Raises CalledProcessError if one of them finds something."""
    place, least = unpack(target, folder), folder / "least" / target
    shutil.rmtree(least, ignore_errors=True)
    least.mkdir(parents=True)
    libfuzzer(target, folder, ["-merge=1", "-use_counters=0", str(least), str(place)])
    kept = {name: data for name, data in read(target).items() if name.startswith("fault-")}
    known = {hashlib.sha1(data).digest() for data in kept.values()}
    for path in least.iterdir():
        data = path.read_bytes()
        if hashlib.sha1(data).digest() not in known:
            kept[hashlib.sha1(data).hexdigest()[:12]] = data
    write(target, kept)
    return len(kept)
