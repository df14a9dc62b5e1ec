"""ONNX files, field by field of their protobuf, without any library: weights are passed over, not read.

Unlike `edgehmn.runtime.onnx_file`, which lets nothing through that edgehmn does not write, this looks at anybody's.
"""

from collections.abc import Iterator
from math import prod
from pathlib import PurePosixPath

from edgehmn.errors import InvalidFileError
from edgehmn.inspection.facts import Facts, StoredTensor, known, tensor_facts
from edgehmn.inspection.source import Source

TYPES = {
    1: ("float32", 4), 2: ("uint8", 1), 3: ("int8", 1), 4: ("uint16", 2), 5: ("int16", 2), 6: ("int32", 4),
    7: ("int64", 8), 8: ("string", 0), 9: ("bool", 1), 10: ("float16", 2), 11: ("float64", 8), 12: ("uint32", 4),
    13: ("uint64", 8), 16: ("bfloat16", 2),
}  # fmt: skip
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SECOND_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42\x72"  # what may come after the IR version, as a field begins
MAX_FIELDS = 1 << 21  # of a file, in all
MAX_TEXT = 1 << 16
MODEL_GRAPH, GRAPH_NODE, GRAPH_INITIALIZER = 7, 1, 5

Field = tuple[int, int, int, int]  # number, wire type, value or offset, length


def inspect(source: Source) -> Facts | None:
    """Facts, or None if this is no ONNX file. Raises InvalidFileError for one that is damaged."""
    return _Reader(source).model() if looks_like(source) else None


def looks_like(source: Source) -> bool:
    """Whether it begins as a model does: the IR version, then any field that a model may have."""
    start = source.read(0, min(source.size, 16))
    return (
        len(start) > 4 and start[0] == 0x08 and 1 <= start[1] <= 64 and start[2] in b"\x12\x1a\x22\x28\x32\x3a\x42\x72"
    )


def stored_tensors(source: Source) -> list[StoredTensor]:
    """The initialisers of a model's graph. Raises InvalidFileError."""
    reader = _Reader(source)
    for number, wire, at, n in reader.fields(0, source.size):
        if (number, wire) == (MODEL_GRAPH, BYTES):
            return [
                reader.tensor(place, size)
                for field, kind, place, size in reader.fields(at, n)
                if (field, kind) == (GRAPH_INITIALIZER, BYTES)
            ]
    raise InvalidFileError(f"{source.name}: an ONNX file without a graph")


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source, self.left, self.external = source, MAX_FIELDS, set[str]()

    def model(self) -> Facts:
        versions: Facts = {}
        metadata: dict[str, str] = {}
        functions, graph = 0, None
        for number, wire, value, n in self.fields(0, self.source.size):
            if (number, wire) == (1, VARINT):
                versions["ir_version"] = value
            elif (number, wire) == (2, BYTES):
                versions["producer"] = self.text(value, n)
            elif (number, wire) == (MODEL_GRAPH, BYTES):
                graph = self.graph(value, n)
            elif (number, wire) == (8, BYTES):
                domain, opset = self._opset(value, n)
                versions[f"opset {domain}".strip()] = opset
            elif (number, wire) == (14, BYTES):
                entry = self._texts(value, n)
                metadata[entry.get(1, "")[:80]] = entry.get(2, "")[:400]
            elif number == 25:
                functions += 1
        if graph is None:
            raise InvalidFileError(f"{self.source.name}: an ONNX file without a graph; it is damaged")
        self._check_external()
        graph |= {"external_data": sorted(self.external) or None, "functions": functions or None}
        return known({"kind": "onnx", "versions": versions} | graph | {"metadata": metadata or None})

    def graph(self, at: int, length: int) -> Facts:
        operators: dict[str, int] = {}
        tensors, ends = [], {11: dict[str, str](), 12: dict[str, str]()}
        for number, wire, value, n in self.fields(at, length):
            if wire != BYTES:
                continue
            if number == GRAPH_NODE:
                texts = self._texts(value, n, only=(4, 7))
                operator = ".".join(part for part in (texts.get(7, ""), texts.get(4, "")) if part)[:80]
                operators[operator] = operators.get(operator, 0) + 1
            elif number == GRAPH_INITIALIZER:
                tensors.append(self.tensor(value, n))
            elif number in ends:
                name, kind = self._value_info(value, n)
                ends[number][name[:80]] = kind
        return {
            "inputs": ends[11],
            "outputs": ends[12],
            "operators": {name: operators[name] for name in sorted(operators)},
            "tensors": tensor_facts(tensors),
        }

    def tensor(self, at: int, length: int) -> StoredTensor:
        name, dims, kind, place, size = "", list[int](), 0, -1, 0
        for number, wire, value, n in self.fields(at, length):
            if number == 1:
                dims += [value] if wire == VARINT else self._packed(value, n)
            elif (number, wire) == (2, VARINT):
                kind = value
            elif (number, wire) == (8, BYTES):
                name = self.text(value, n)
            elif (number, wire) == (9, BYTES):
                place, size = value, n
            elif (number, wire) == (13, BYTES):
                entry = self._texts(value, n)
                if entry.get(1) == "location":
                    self.external.add(entry.get(2, "")[:400])
        if len(dims) > 16 or any(not 0 <= n < 1 << 40 for n in dims):
            raise InvalidFileError(f"{self.source.name}: tensor '{name:.80}' has an impossible shape")
        dtype, item = TYPES.get(kind, (f"type {kind}", 0))
        return StoredTensor(name, dtype, tuple(dims), place, size if place >= 0 else prod(dims) * item)

    def text(self, at: int, n: int) -> str:
        return self.source.read(at, min(n, MAX_TEXT)).decode("utf-8", "replace")

    def fields(self, at: int, length: int) -> Iterator[Field]:
        """The fields of a message that lies at `at`."""
        end = at + length
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise InvalidFileError(f"{self.source.name}: has more than {MAX_FIELDS} fields; it is damaged")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, at = self._varint(at, end)
                yield number, wire, value, 0
                continue
            n = {FIXED64: 8, FIXED32: 4}.get(wire, -1)
            if wire == BYTES:
                n, at = self._varint(at, end)
            if n < 0 or n > end - at:
                raise InvalidFileError(f"{self.source.name}: truncated or damaged at byte {at}")
            yield number, wire, at, n
            at += n

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for i, byte in enumerate(self.source.read(at, min(10, end - at))):
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value, at + i + 1
        raise InvalidFileError(f"{self.source.name}: truncated or damaged at byte {at}")

    def _packed(self, at: int, n: int) -> list[int]:
        out: list[int] = []
        end = at + n
        while at < end and len(out) <= 16:
            value, at = self._varint(at, end)
            out.append(value)
        return out

    def _texts(self, at: int, n: int, only: tuple[int, ...] = ()) -> dict[int, str]:
        """Fields of bytes by their numbers."""
        fields = self.fields(at, n)
        return {f: self.text(v, size) for f, wire, v, size in fields if wire == BYTES and (not only or f in only)}

    def _opset(self, at: int, n: int) -> tuple[str, int]:
        domain, version = "", 0
        for number, wire, value, size in self.fields(at, n):
            if (number, wire) == (1, BYTES):
                domain = self.text(value, size)[:80]
            elif (number, wire) == (2, VARINT):
                version = value
        return domain, version

    def _value_info(self, at: int, n: int) -> tuple[str, str]:
        """Name, and type and shape, such as "float32 (1, 128)"."""
        name, kind, dims = "", 0, list[str]()
        for number, wire, value, size in self.fields(at, n):
            if (number, wire) == (1, BYTES):
                name = self.text(value, size)
            elif (number, wire) == (2, BYTES):
                for _, _, inner, inner_size in self._only(value, size, 1):
                    kind, dims = self._tensor_type(inner, inner_size)
        return name, f"{TYPES.get(kind, (f'type {kind}',))[0]} ({', '.join(dims)})"

    def _tensor_type(self, at: int, n: int) -> tuple[int, list[str]]:
        kind, dims = 0, list[str]()
        for number, wire, value, size in self.fields(at, n):
            if (number, wire) == (1, VARINT):
                kind = value
            elif (number, wire) == (2, BYTES):
                for _, _, dim, dim_size in self._only(value, size, 1):
                    sizes = [
                        str(v) if w == VARINT else self.text(v, s)[:40]
                        for f, w, v, s in self.fields(dim, dim_size)
                        if (f, w) in ((1, VARINT), (2, BYTES))
                    ]
                    dims.append(sizes[0] if sizes else "?")
        return kind, dims[:16]

    def _only(self, at: int, n: int, number: int) -> Iterator[Field]:
        """The messages with one number."""
        return (field for field in self.fields(at, n) if field[:2] == (number, BYTES))

    def _check_external(self) -> None:
        for location in self.external:
            path = PurePosixPath(location.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in location or not path.parts:
                raise InvalidFileError(
                    f"{self.source.name}: wants data from {location!r:.80}, outside its folder; do not run it"
                )
