"""TFLite files, table by table of their flatbuffer, without any library. Every offset is checked before it is used."""

from collections.abc import Iterator
from math import prod

from edgehmn.errors import InvalidFileError
from edgehmn.inspection.facts import Facts, StoredTensor, known, tensor_facts
from edgehmn.inspection.source import Source

IDENTIFIER = b"TFL3"  # bytes 4..7
MAX_ENTRIES = 1 << 17  # tensors, operators or buffers
MAX_DIMENSIONS = 8
MAX_TEXT = 1 << 12
TYPES = (
    ("float32", 32), ("float16", 16), ("int32", 32), ("uint8", 8), ("int64", 64), ("string", 0), ("bool", 8),
    ("int16", 16), ("complex64", 64), ("int8", 8), ("float64", 64), ("complex128", 128), ("uint64", 64),
    ("resource", 0), ("variant", 0), ("uint32", 32), ("uint16", 16), ("int4", 4), ("bfloat16", 16),
)  # fmt: skip
# Fields of the tables, by their place in the schema.
MODEL = {"version": 0, "operator_codes": 1, "subgraphs": 2, "description": 3, "buffers": 4, "metadata": 6}
SUBGRAPH = {"tensors": 0, "inputs": 1, "outputs": 2, "operators": 3}
TENSOR = {"shape": 0, "type": 1, "buffer": 2, "name": 3}
CODE = {"deprecated": 0, "custom": 1, "builtin": 3}


def looks_like(source: Source) -> bool:
    return source.size >= 8 and source.read(4, 4) == IDENTIFIER


def inspect(source: Source) -> Facts:
    """Facts of a TFLite file. Raises InvalidFileError for a damaged one."""
    reader = _Reader(source)
    root = reader.root()
    subgraphs = list(reader.tables(root, MODEL["subgraphs"]))
    if not subgraphs:
        raise InvalidFileError(f"{source.name}: a TFLite file without a graph; it is damaged")
    first = subgraphs[0]
    tensors = list(reader.tables(first, SUBGRAPH["tensors"]))
    codes = [reader.operator_name(code) for code in reader.tables(root, MODEL["operator_codes"])]
    operators: dict[str, int] = {}
    for operator in reader.tables(first, SUBGRAPH["operators"]):
        index = reader.scalar(operator, 0, 4)
        if index >= len(codes):
            raise InvalidFileError(f"{source.name}: an operator without a code; it is damaged")
        operators[codes[index]] = operators.get(codes[index], 0) + 1
    ends = {
        name: {reader.name(tensors[i]): reader.described(tensors[i]) for i in reader.indices(first, name, len(tensors))}
        for name in ("inputs", "outputs")
    }
    metadata = [reader.text(entry, 0) for entry in reader.tables(root, MODEL["metadata"])]
    return known(
        {
            "kind": "tflite",
            "version": reader.scalar(root, MODEL["version"], 4),
            "description": reader.text(root, MODEL["description"]) or None,
            "subgraphs": len(subgraphs),
            "inputs": ends["inputs"],
            "outputs": ends["outputs"],
            "operators": {name: operators[name] for name in sorted(operators)},
            "tensors": tensor_facts(stored_tensors(source)),
            "metadata": metadata or None,
        }
    )


def stored_tensors(source: Source) -> list[StoredTensor]:
    """The constant tensors of the first graph. Raises InvalidFileError."""
    reader = _Reader(source)
    root = reader.root()
    buffers = [reader.vector(table, 0, 1) for table in reader.tables(root, MODEL["buffers"])]
    out = []
    for table in reader.tables(next(iter(reader.tables(root, MODEL["subgraphs"]))), SUBGRAPH["tensors"]):
        index = reader.scalar(table, TENSOR["buffer"], 4)
        if index >= len(buffers):
            raise InvalidFileError(f"{source.name}: a tensor without a buffer; it is damaged")
        place, size = buffers[index]
        if size == 0:
            continue
        dtype, bits = reader.type_of(table)
        shape = reader.shape(table)
        if bits and (prod(shape) * bits + 7) // 8 != size:
            raise InvalidFileError(f"{source.name}: a tensor's bytes are not what its type and shape say")
        out.append(StoredTensor(reader.name(table), dtype, shape, place, size))
    return out


class _Reader:
    """Tables are given by their places in the file; a field that is not there is 0, or empty."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def root(self) -> int:
        return self.source.unsigned(0, 4)

    def field(self, table: int, number: int) -> int:
        """The place of a field, 0 if it is not there."""
        vtable = table - int.from_bytes(self.source.read(table, 4), "little", signed=True)
        size = self.source.unsigned(vtable, 2)
        at = 4 + 2 * number
        offset = self.source.unsigned(vtable + at, 2) if at + 2 <= size else 0
        return table + offset if offset else 0

    def scalar(self, table: int, number: int, n: int) -> int:
        at = self.field(table, number)
        return self.source.unsigned(at, n) if at else 0

    def vector(self, table: int, number: int, item: int) -> tuple[int, int]:
        """Place and length of a vector whose items have `item` bytes."""
        at = self.field(table, number)
        if not at:
            return 0, 0
        at += self.source.unsigned(at, 4)
        n = self.source.unsigned(at, 4)
        self.source.require(at + 4, n * item)
        return at + 4, n

    def tables(self, table: int, number: int) -> Iterator[int]:
        """The tables of a vector of tables."""
        at, n = self.vector(table, number, 4)
        if n > MAX_ENTRIES:
            raise InvalidFileError(f"{self.source.name}: a list of {n} entries; it is damaged")
        for place in range(at, at + 4 * n, 4):
            yield place + self.source.unsigned(place, 4)

    def indices(self, table: int, name: str, limit: int) -> list[int]:
        at, n = self.vector(table, SUBGRAPH[name], 4)
        found = [self.source.unsigned(at + 4 * i, 4) for i in range(min(n, MAX_ENTRIES))]
        if n > MAX_ENTRIES or any(i >= limit for i in found):
            raise InvalidFileError(f"{self.source.name}: its {name} are no tensors; it is damaged")
        return found

    def text(self, table: int, number: int) -> str:
        at, n = self.vector(table, number, 1)
        return self.source.read(at, min(n, MAX_TEXT)).decode("utf-8", "replace") if n else ""

    def name(self, tensor: int) -> str:
        return self.text(tensor, TENSOR["name"])[:80]

    def shape(self, tensor: int) -> tuple[int, ...]:
        at, n = self.vector(tensor, TENSOR["shape"], 4)
        if n > MAX_DIMENSIONS:
            raise InvalidFileError(f"{self.source.name}: a tensor of {n} dimensions; it is damaged")
        return tuple(self.source.unsigned(at + 4 * i, 4) for i in range(n))

    def type_of(self, tensor: int) -> tuple[str, int]:
        """Name, and bits of an element; 0 where they are not fixed."""
        number = self.scalar(tensor, TENSOR["type"], 1)
        return TYPES[number] if number < len(TYPES) else (f"type {number}", 0)

    def described(self, tensor: int) -> str:
        return f"{self.type_of(tensor)[0]} ({', '.join(map(str, self.shape(tensor)))})"

    def operator_name(self, code: int) -> str:
        if custom := self.text(code, CODE["custom"]):
            return f"custom {custom[:80]}"
        number = max(self.scalar(code, CODE["deprecated"], 1), self.scalar(code, CODE["builtin"], 4))
        return _builtin_names().get(number, f"builtin {number}")


def _builtin_names() -> dict[int, str]:
    """Names of the operators, where the library that knows them is installed."""
    try:
        from ai_edge_litert.schema_py_generated import BuiltinOperator
    except ImportError:
        return {}
    return {number: name for name, number in vars(BuiltinOperator).items() if isinstance(number, int)}
