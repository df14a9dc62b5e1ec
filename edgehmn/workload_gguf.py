"""The workload of a GGUF file: the matrices that a generated token reads, each once."""

from math import prod

from edgehmn.errors import InvalidFileError
from edgehmn.inspection.facts import Facts, StoredTensor
from edgehmn.inspection.gguf import read_head, sizes
from edgehmn.inspection.source import Source
from edgehmn.workload import Operation, Workload, checked_macs

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
EXPERTS = "_exps"  # matrices of all experts of a layer, one after the other
CONTEXT = 2048  # tokens whose keys and values are taken into the RAM that is needed


def gguf_workload(source: Source, name: str) -> Workload:
    """Raises InvalidFileError. Of an input embedding that is not the head too, a token reads one row: nothing here.
    Of experts it reads those that the file says are used."""
    _, pairs, tensors = read_head(source)
    unread = EMBEDDING if any(t.name == HEAD for t in tensors) else ""
    used = _experts_used(pairs)
    operations = [_operation(t, source.name, used) for t in tensors if len(t.shape) >= 2 and t.name != unread]
    if not operations:
        raise InvalidFileError(f"{source.name}: no matrices in it; there is nothing to generate text with")
    return Workload(name, "token", tuple(operations), source.size, _cache_bytes(sizes(pairs)), generated=True)


def _experts_used(pairs: Facts) -> float:
    """Share of the experts that a token reads; 1 where a file has none, or does not say."""
    architecture = pairs.get("general.architecture")
    used, count = (pairs.get(f"{architecture}.expert_{key}") for key in ("used_count", "count"))
    if isinstance(used, int) and isinstance(count, int) and 0 < used <= count:
        return used / count
    return 1.0


def _operation(tensor: StoredTensor, where: str, experts_used: float) -> Operation:
    part = experts_used if tensor.name.removesuffix(".weight").endswith(EXPERTS) else 1.0
    label = "head" if tensor.name in (EMBEDDING, HEAD) else tensor.name.removesuffix(".weight")
    moved = 4 * (tensor.shape[0] + tensor.shape[-1])
    macs = checked_macs(prod(tensor.shape), where)
    return Operation(label, "fc", round(part * macs), round(part * tensor.bytes), moved)


def _cache_bytes(known: Facts) -> int:
    """Of keys and values in half precision, for CONTEXT tokens; a file that does not say its sizes counts as none."""
    numbers = [known[k] for k in ("n_layers", "d_model", "n_heads", "n_kv_heads")]
    n_layers, d_model, n_heads, n_kv = (v if isinstance(v, int) and 0 < v < 1 << 24 else 0 for v in numbers)
    return 2 * 2 * CONTEXT * n_layers * d_model * min(n_kv or n_heads, n_heads) // max(1, n_heads)
