"""The workload of an export: its layers from the settings of the image; what learning adds, by the core's counters."""

from dataclasses import replace
from pathlib import Path

from edgehmn.checkpoint.model import MLPS, WINDOWS
from edgehmn.core import CoreModel, Image, arena_regions, ffi
from edgehmn.exported import Export
from edgehmn.streams import Ids
from edgehmn.texts import EVALUATION, shipped
from edgehmn.workload import Learning, Operation, Workload

COUNTED_MACS = 1e9  # about as many are spent on each half of the runs that count
MOST_TOKENS, LEAST_TOKENS = 300, 16


def export_workload(folder: Path) -> Workload:
    """Raises UsageError and InvalidFileError as Export.open."""
    export = Export.open(folder)
    image = export.image
    operations = image_operations(image)
    ids = export.encode(shipped(EVALUATION)[:20_000])
    macs = sum(o.macs for o in operations)
    n = int(min(MOST_TOKENS, max(LEAST_TOKENS, COUNTED_MACS / max(1, macs))))
    regions = tuple((r["name"], r["bytes"]) for r in arena_regions(image))
    return Workload(
        folder.name, "token", operations, len(image.bytes), image.arena_bytes(plastic=False),
        image.arena_bytes(plastic=True), count_learning(image, ids[: 2 * n])[1], regions,
    )  # fmt: skip


def image_operations(image: Image) -> tuple[Operation, ...]:
    """Of one token of a long text, on average: a window that slides is full; one that restarts is between half full and
    full, and each token is encoded a second time, unseen, when the window begins anew."""
    h = image.header
    n_ctx, n_heads = int(h.n_ctx), int(h.n_heads)
    restarts = WINDOWS[h.window] == "restart"
    length = 3 * n_ctx // 4 if restarts else n_ctx
    d, hidden, d_kv = int(h.d_model), int(h.d_hidden), int(h.d_model) // int(h.n_heads) * int(h.n_kv_heads)
    bits = _weight_bits(image)
    shapes = {"q": (d, d), "k": (d_kv, d), "v": (d_kv, d), "o": (d, d)}
    shapes |= {"gate": (hidden, d)} if MLPS[h.mlp] == "swiglu" else {}
    shapes |= {"up": (hidden, d), "down": (d, hidden)}
    out = []
    for layer in range(int(h.n_layers)):
        for name, (rows, cols) in shapes.items():
            out.append(_product(f"layer {layer} {name}", rows, cols, bits))
            if name == "v":
                out.append(_attention(f"layer {layer} attention", length, d, d_kv, n_heads))
    if restarts:
        again = [replace(o, name=f"{o.name}, again") for o in out if o.kind == "fc"]
        names = [f"layer {i} attention, again" for i in range(int(h.n_layers))]
        out += [*again, *(_attention(name, n_ctx // 4, d, d_kv, n_heads) for name in names)]
    return (*out, _product("head", int(h.vocab_size), d, bits))


def _attention(name: str, length: int, d: int, d_kv: int, n_heads: int) -> Operation:
    return Operation(name, "attention", 2 * length * d, 0, 2 * length * d_kv, length * n_heads)


def _product(name: str, rows: int, cols: int, bits: dict[tuple[int, int], int]) -> Operation:
    return Operation(
        name, "fc", rows * cols, rows * (cols * bits.get((rows, cols), 8) // 8 + 4), 4 * (rows + cols), rows
    )


def _weight_bits(image: Image) -> dict[tuple[int, int], int]:
    """Most bits of a weight, by the shape of its matrix."""
    h = image.header
    n = (h.vectors_offset - h.matrices_offset) // ffi.sizeof("ehmn_matrix")
    out: dict[tuple[int, int], int] = {}
    for m in ffi.cast("ehmn_matrix *", image.pointer + h.matrices_offset)[0:n]:
        shape = (int(m.rows), int(m.cols))
        out[shape] = max(out.get(shape, 0), int(m.weight_bits))
    return out


def count_learning(image: Image, tokens: Ids) -> tuple[float, Learning]:
    """Multiply-accumulates of a frozen token, and what learning adds, per token of the second half of `tokens`; the
    first half fills the window and the memories."""
    half = max(1, len(tokens) // 2)
    first, second = tokens[:half], tokens[half:]
    n = max(1, len(second))
    frozen = CoreModel(image, plastic=False)
    model = CoreModel(image)
    frozen.process(first, learn=False)
    model.process(first, learn=True)
    start_frozen, start = frozen.counts(), model.counts()
    frozen.process(second, learn=False)
    model.process(second, learn=True)
    learned = model.counts()
    model.process(second, learn=False)
    macs_frozen = (frozen.counts().macs - start_frozen.macs) / n
    macs_predicted = (model.counts().macs - learned.macs) / n
    macs_learned = (learned.macs - start.macs) / n
    writes = (learned.writes - start.writes) / max(1, learned.learned - start.learned)
    added = max(0.0, macs_predicted - macs_frozen), max(0.0, macs_learned - macs_predicted)
    return macs_frozen, Learning(*added, writes, image.delta_bytes())
