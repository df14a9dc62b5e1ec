"""What inspection finds, in one form for every format."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

Facts = dict[str, Any]  # "kind" first; values are JSON: scalars, and one level of dicts or lists below


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file declares it. offset: of its bytes in the file, -1 if they are not in one place there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int

    @property
    def parameters(self) -> int:
        return prod(self.shape)


def tensor_facts(tensors: Iterable[StoredTensor]) -> Facts:
    """How many there are, of which types, and what they take."""
    count = parameters = size = 0
    dtypes: dict[str, int] = {}
    for tensor in tensors:
        count += 1
        parameters += tensor.parameters
        size += tensor.bytes
        dtypes[tensor.dtype] = dtypes.get(tensor.dtype, 0) + 1
    return {"count": count, "parameters": parameters, "bytes": size} | {k: dtypes[k] for k in sorted(dtypes)}


def known(values: Facts) -> Facts:
    """Without what is not known."""
    return {name: value for name, value in values.items() if value is not None}
