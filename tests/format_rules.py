"""What makes an image, a delta or a tokenizer's section valid, once more, in Python: written from SPEC.md and the
comments of the headers, and there to disagree with the validators in C.

Only the limits by name (EHMN_MAX_...) come from the headers. Fields are read by their names from the tables below, in
their order in the headers, and everything else is said as the documents say it: sections are followed one by one.
"""

import zlib
from collections.abc import Iterator, Sequence
from struct import unpack_from
from typing import Any

from edgehmn.core import lib

IMAGE = (
    "magic version bytes crc32 id:8 n_layers d_model d_hidden n_heads n_kv_heads vocab_size n_ctx n_dense final_norm "
    "tied_head norm mlp positions window start_token value_frac hidden_frac norm_eps_mantissa norm_eps_shift "
    "matrices_offset vectors_offset guard_offset n_guard tokenizer_offset tokenizer_bytes reserved:3 "
    "eta_local eta_global w_reward w_uncertainty w_novelty kappa rho_slow beta_attention rho_context phase_step "
    "decay_row weight_frac n_negatives eta_gain gain_max rho_average rho_trace:8 phase_seed row_slots:2 eta_row:2 "
    "row_frac decay_visit bias_step bias_decay ngram_slots ngram_order:4 eta_ngram episodes sharpness eta_episode "
    "eta_scale topic_limit topic_margin guard_limit closed_below unused:17"
)
MATRIX = "rows cols weights_offset scales_offset shift input_bits weight_bits bias_offset"
VECTOR = "length offset shift reserved"
GUARD = "frac token bits"
AVERAGE = "mean variance started reserved"
DELTA = (
    "magic version bytes crc32 id:8 seed:2 learned:2 writes:2 phase written checks guard_excess age spread reward:4 "
    "uncertainty:4 novelty:4 scale bias row:2 dense:8 ngram:64 share:16"
)
SECTION = (
    "magic version bytes n_tokens n_merges merged first_merged n_chars n_whole n_added n_literals literal_bytes "
    "word_bytes split digits metaspace prefix strip reserved:6 added_first:8"
)
# Inclusive, of the settings that stand for themselves.
RANGES = {
    "n_layers": (1, lib.EHMN_MAX_LAYERS), "d_model": (2, lib.EHMN_MAX_D_MODEL), "d_hidden": (1, lib.EHMN_MAX_D_HIDDEN),
    "vocab_size": (2, lib.EHMN_MAX_VOCAB), "n_ctx": (1, lib.EHMN_MAX_CTX), "n_dense": (0, lib.EHMN_MAX_DENSE),
    "final_norm": (0, 1), "tied_head": (0, 1), "norm": (0, 1), "mlp": (0, 1), "positions": (0, 1), "window": (0, 1),
    "value_frac": (8, 16), "hidden_frac": (0, 14), "norm_eps_mantissa": (0, 2**31 - 1), "norm_eps_shift": (0, 62),
    "n_guard": (0, lib.EHMN_MAX_GUARD), "eta_local": (0, 2**24), "eta_global": (0, 2**24),
    "w_reward": (-(2**20), 2**20), "w_uncertainty": (-(2**20), 2**20), "w_novelty": (-(2**20), 2**20),
    "kappa": (0, 2**20), "rho_slow": (0, 65535), "beta_attention": (0, 2**20), "rho_context": (0, 65535),
    "decay_row": (0, 2**24 - 1), "weight_frac": (0, 16), "n_negatives": (1, lib.EHMN_MAX_NEGATIVES),
    "eta_gain": (0, 2**20), "gain_max": (0, 2**20), "rho_average": (0, 65535), "rho_trace": (0, 65535),
    "row_slots": (0, lib.EHMN_MAX_SLOTS), "eta_row": (0, 2**24), "row_frac": (0, 16), "decay_visit": (0, 2**24 - 1),
    "bias_step": (0, 32767), "bias_decay": (0, 65535), "ngram_slots": (0, lib.EHMN_MAX_SLOTS),
    "ngram_order": (0, lib.EHMN_MAX_ORDER), "eta_ngram": (0, 2**20), "episodes": (0, lib.EHMN_MAX_SLOTS),
    "sharpness": (0, 2**20), "eta_episode": (0, 65536), "eta_scale": (0, 2**24), "topic_limit": (0, 2**31 - 1),
    "topic_margin": (0, 2**31 - 1), "guard_limit": (0, 2**20), "closed_below": (0, 2**20),
    "reserved": (0, 0), "unused": (0, 0),
}  # fmt: skip
UNSIGNED = {"start_token", "phase_step", "phase_seed", "crc32", "id", "magic"}


class Invalid(Exception):
    """A rule that is broken."""


def require(holds: bool, rule: str) -> None:
    if not holds:
        raise Invalid(rule)


def fields(names: str, data: bytes, at: int = 0) -> dict[str, Any]:
    """Words of 32 bits by their names, signed ones unless their names say otherwise; lists where there are several."""
    out: dict[str, Any] = {}
    for name, _, n in (word.partition(":") for word in names.split()):
        count = int(n or 1)
        require(at + 4 * count <= len(data), "the header is whole")
        words = list(unpack_from(f"<{count}{'I' if name in UNSIGNED else 'i'}", data, at))
        out[name] = words if n else words[0]
        at += 4 * count
    return out


def sealed(data: bytes, magic: int, version: int, size: int) -> None:
    """The beginning that images and deltas have in common."""
    require(len(data) >= size, "the header is whole")
    require(unpack_from("<4I", data) == (magic, version, len(data), zlib.crc32(data[16:])), "the seal is right")


def all_in(values: Sequence[int], low: int, high: int) -> bool:
    return all(low <= v <= high for v in values)


def settings_of(data: bytes) -> dict[str, Any]:
    h = fields(IMAGE, data)
    for name, (low, high) in RANGES.items():
        values = h[name] if isinstance(h[name], list) else [h[name]]
        require(all_in(values, low, high), name)
    require(1 <= h["n_kv_heads"] <= h["n_heads"] <= h["d_model"], "there are heads")
    require(h["d_model"] % h["n_heads"] == 0 and h["n_heads"] % h["n_kv_heads"] == 0, "heads divide")
    h["d_head"] = h["d_model"] // h["n_heads"]
    require(h["d_head"] % 2 == 0 and h["d_head"] <= lib.EHMN_MAX_D_HEAD, "pairs of a head are turned")
    require(h["n_negatives"].bit_count() == 1, "negatives are a power of two")
    if h["window"] == lib.EHMN_WINDOW_SLIDING:
        require(h["start_token"] == lib.EHMN_NO_TOKEN, "a window that slides has no start token")
        require(h["positions"] != lib.EHMN_POSITIONS_LEARNED, "nor learned positions")
    else:
        require(h["n_ctx"] >= 4, "a window that restarts has room")
        require(h["start_token"] in (lib.EHMN_NO_TOKEN, *range(h["vocab_size"])), "the start token is one")
    return h


def shapes(h: dict[str, Any]) -> Iterator[tuple[int, int, bool]]:
    """Rows, columns, and whether it lies in a layer, of each matrix in order."""
    d, kv, hidden = h["d_model"], h["d_head"] * h["n_kv_heads"], h["d_hidden"]
    gate = 0 if h["mlp"] == lib.EHMN_MLP_GELU else hidden
    for _ in range(h["n_layers"]):
        yield from ((rows, cols, True) for rows, cols in ((d, d), (kv, d), (kv, d), (d, d), (gate, d), (hidden, d)))
        yield d, hidden, True
    yield h["vocab_size"], d, False
    if not h["tied_head"]:
        yield h["vocab_size"], d, False
    if h["positions"] == lib.EHMN_POSITIONS_LEARNED:
        yield h["n_ctx"], d, False
    yield d, d, False
    yield d, d, False


class Layout:
    """Sections one after the other, each at the next multiple of 16, zeros between."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def section(self, offset: int, size: int) -> bytes:
        """The bytes of the next section, which must begin at `offset`."""
        require(offset == self.at, "a section begins where the last one ends")
        end = self.at + size
        self.at = -(-end // lib.EHMN_ALIGN) * lib.EHMN_ALIGN
        require(self.at <= len(self.data), "the file holds all sections")
        require(not any(self.data[end : self.at]), "padding is zero")
        return self.data[offset:end]


def check_matrix(m: dict[str, Any], shape: tuple[int, int, bool], layout: Layout) -> None:
    rows, cols, in_layer = shape
    require((m["rows"], m["cols"]) == (rows, cols), "the shape follows from the settings")
    require(0 <= m["shift"] <= 62 and 8 <= m["input_bits"] <= 16, "shift and inputs are possible")
    few = m["weight_bits"] == 4
    require(m["weight_bits"] == 8 or (few and in_layer and m["input_bits"] > 8), "weights have 8 bits, or 4 in a layer")
    row_bytes = -(-cols // 2) if few else cols
    weights = layout.section(m["weights_offset"], rows * row_bytes)
    scales = layout.section(m["scales_offset"], 4 * rows)
    if m["bias_offset"]:
        require(in_layer, "a bias is in a layer")
        layout.section(m["bias_offset"], 4 * rows)
    require(all_in(unpack_from(f"<{rows}i", scales), 0, 2**31 - 1), "scales are not negative")
    most = (2**31 - 1) // (127 * 259 if m["input_bits"] == 8 else 2 ** (m["input_bits"] - 1) - 1)
    for row in (weights[i : i + row_bytes] for i in range(0, rows * row_bytes, row_bytes)):
        values = list(unpack_from(f"{len(row)}b", row))
        if few:
            halves = [half for byte in row for half in (byte & 15, byte >> 4)]
            require(not any(halves[cols:]), "an unused half is zero")
            values = [(half ^ 8) - 8 for half in halves[:cols]]
        require(min(values) > (-8 if few else -128), "the most negative weight does not occur")
        require(sum(map(abs, values)) <= most, "no accumulator overflows")


def check_image(data: bytes) -> None:
    """Raises Invalid."""
    sealed(data, lib.EHMN_IMAGE_MAGIC, lib.EHMN_IMAGE_VERSION, 416)
    h = settings_of(data)
    all_shapes = list(shapes(h))
    tables = 416 + 32 * len(all_shapes)
    require((h["matrices_offset"], h["vectors_offset"]) == (416, tables), "tables follow the header")
    layout = Layout(data, 416)
    layout.section(416, 32 * len(all_shapes) + 16 * lib.EHMN_VECTORS)
    for i, shape in enumerate(all_shapes):
        check_matrix(fields(MATRIX, data, 416 + 32 * i), shape, layout)
    for i in range(lib.EHMN_VECTORS):
        v = fields(VECTOR, data, tables + 16 * i)
        turns = h["d_head"] // 2 if h["positions"] == lib.EHMN_POSITIONS_ROPE else 0
        special = {lib.EHMN_VECTOR_ROPE: turns, lib.EHMN_VECTOR_NORM_SHIFTS: 2 * h["n_layers"] * h["d_model"]}
        require(v["length"] == special.get(i, h["d_model"]), "vectors have their lengths")
        require(0 <= v["shift"] <= 62 and v["reserved"] == 0, "vectors are possible")
        values = layout.section(v["offset"], 4 * v["length"])
        if i == lib.EHMN_VECTOR_NORM_SHIFTS:
            require(all_in(unpack_from(f"<{v['length']}i", values), 0, 8), "norms are shifted by few bits")
    n = h["n_guard"]
    guard = layout.section(h["guard_offset"], n * (12 + h["d_model"]))
    for g in (fields(GUARD, guard, 12 * i) for i in range(n)):
        require(-16 <= g["frac"] <= 30 and 0 <= g["token"] < h["vocab_size"], "guards are possible")
        require(0 <= g["bits"] <= lib.EHMN_MAX_BITS, "so are their scores")
    require(0x80 not in guard[12 * n :], "-128 does not occur")
    require(h["tokenizer_bytes"] >= 0, "the tokenizer has a size")
    section = layout.section(h["tokenizer_offset"], h["tokenizer_bytes"])
    require(layout.at == len(data), "nothing follows the last section")
    if section:
        check_section(section, h["vocab_size"])


def check_delta(image: bytes, data: bytes) -> None:
    """Of a valid image. Raises Invalid."""
    sealed(data, lib.EHMN_DELTA_MAGIC, lib.EHMN_DELTA_VERSION, 512)
    im, h = fields(IMAGE, image), fields(DELTA, data)
    d, n_dense, vocab, most = im["d_model"], im["n_dense"], im["vocab_size"], im["gain_max"]
    require(h["id"] == im["id"], "it belongs to the image")
    for mean in (h["reward"], h["uncertainty"], h["novelty"]):
        require(mean[1] >= 0 and mean[2] in (0, 1) and mean[3] == 0, "averages are possible")
    require(h["spread"] >= 0 and 0 <= h["checks"] <= 256 and 0 <= h["written"] % 2**32 <= 2**31, "counts are possible")
    require(all_in([h["scale"], h["bias"], *h["row"], *h["dense"][:n_dense]], 0, most), "gains are possible")
    require(not any(h["dense"][n_dense:]), "gains of nothing are zero")
    require(all_in(h["ngram"], -(2**20), 2**20) and all_in(h["share"], 66, 62259), "gains of memories are possible")
    orders = sum(order > 0 for order in im["ngram_order"])
    words, episodes, written = -(-d // 32), im["episodes"], h["written"] % 2**32
    at, parts = 512, []
    for size in (
        n_dense * d * d, sum(im["row_slots"]) * d, 2 * vocab * (im["bias_step"] > 0), 4 * orders * im["ngram_slots"],
        4 * episodes * words, 4 * episodes, *3 * [4 * n_dense * d], 8 * d, 4 * d, 4 * d,
    ):  # fmt: skip
        end = at + size
        parts.append(data[at:end])
        at = -(-end // 4) * 4
        require(not any(data[end:at]), "padding is zero")
    require(at == len(data), "the size follows from the image")
    dense, rows, bias, ngrams, keys, tokens = parts[:6]
    require(0x80 not in dense + rows, "-128 does not occur")
    require(-32768 not in unpack_from(f"<{len(bias) // 2}h", bias), "nor -32768")
    for slot in unpack_from(f"<{len(ngrams) // 4}I", ngrams):
        require(slot == 0 if slot >> 28 == 0 else slot % 2**18 < vocab, "slots hold tokens")
    require(episodes > 0 or written == 0, "nothing is written where nothing can be")
    for i, token in enumerate(unpack_from(f"<{episodes}I", tokens)):
        key = int.from_bytes(keys[4 * words * i : 4 * words * (i + 1)], "little")
        require(key >> d == 0 and token < vocab if i < written else key == token == 0, "episodes are possible")


def check_section(data: bytes, vocab_size: int) -> None:
    """A tokenizer's, for a model of so many tokens. Raises Invalid."""
    require(len(data) >= 128, "the header is whole")
    h = fields(SECTION, data)
    require(h["magic"] == lib.EHMN_TOKENIZER_MAGIC and h["version"] == lib.EHMN_TOKENIZER_VERSION, "it is one")
    require(h["bytes"] == len(data) and not any(h["reserved"]), "its size is right")
    in_order, n, merges = h["merged"] == lib.EHMN_MERGED_IN_ORDER, h["n_tokens"], h["n_merges"]
    require(
        1 <= n <= vocab_size and 0 <= merges <= lib.EHMN_MAX_MERGES and h["merged"] in (0, 1), "counts are possible"
    )
    require(0 <= h["n_added"] <= lib.EHMN_MAX_ADDED, "added tokens are not too many")
    require(0 <= h["n_chars"] <= n and 0 <= h["n_whole"] <= n and h["literal_bytes"] >= 0, "lists are possible")
    first = h["first_merged"]
    require((first >= 0 and first + merges <= n) if in_order else first == 0, "merged tokens are tokens")
    require(h["n_literals"] == n - merges * in_order, "the others have literals")
    require(h["word_bytes"] == 4 or (h["word_bytes"] == 2 and n < 2**16), "words hold tokens")
    for name, high in (("split", 5), ("digits", 1), ("metaspace", 1), ("prefix", 3), ("strip", 2)):
        require(0 <= h[name] <= high, name)
    check_arrays(data, h, [i for i in range(n) if not (in_order and first <= i < first + merges)])


def check_arrays(data: bytes, h: dict[str, Any], with_literal: list[int]) -> None:
    n, merges, in_order = h["n_tokens"], h["n_merges"], h["merged"] == lib.EHMN_MERGED_IN_ORDER
    word, at, arrays = h["word_bytes"], 128, []
    counts = [2 * merges, merges, 0 if in_order else merges, 256, h["n_chars"], h["n_whole"]]
    sizes = [(word, c) for c in counts] + [(4, 2 * h["n_added"]), (4, h["n_literals"]), (1, h["literal_bytes"])]
    for size, count in sizes:
        end = at + size * count
        require(end <= len(data), "arrays lie in the section")
        arrays.append(list(unpack_from(f"<{count}{ {1: 'B', 2: 'H', 4: 'I'}[size] }", data, at)))
        at = -(-end // 4) * 4
        require(not any(data[end:at]), "padding is zero")
    require(at == len(data), "nothing follows")
    flat, order, results, of_byte, chars, whole, added, ends, text = arrays
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    starts = [0, *ends[:-1]] if ends else []
    require(all(0 <= b - a <= lib.EHMN_MAX_TOKEN_BYTES for a, b in zip(starts, ends, strict=True)), "literals follow")
    require((ends[-1] if ends else 0) == len(text), "and fill their room")
    literal = {t: bytes(text[a:b]) for t, a, b in zip(with_literal, starts, ends, strict=True)}
    require(all(t < n for t in flat + results), "merges are of tokens")
    require(sorted(order) == list(range(merges)), "each merge stands in the order once")
    sorted_pairs = [pairs[i] for i in order]
    require(sorted(set(sorted_pairs)) == sorted_pairs, "by increasing pairs")
    if in_order:
        check_made(pairs, h["first_merged"], literal)
    none = 2 ** (8 * word) - 1
    require(all(t < n or t == none for t in of_byte), "bytes have tokens or none")
    for tokens in (chars, whole):
        require(all(t in literal for t in tokens), "lists are of literals")
        said = [b"", *(literal[t] for t in tokens)]
        require(sorted(set(said)) == said, "which increase")
    firsts = 0
    require(all(t in literal and literal[t] for t in added[::2]), "added tokens have literals")
    require(all(flags <= 3 for flags in added[1::2]), "flags are known")
    lengths = [len(literal[t]) for t in added[::2]]
    require(sorted(lengths, reverse=True) == lengths, "the longest come first")
    for token in added[::2]:
        firsts |= 1 << literal[token][0]
    require(firsts.to_bytes(32, "little") == data[96:128], "first bytes are known")


def check_made(pairs: list[tuple[int, int]], first: int, literal: dict[int, bytes]) -> None:
    """What merges in order make: each of earlier tokens, not too long, of not too many parts, not too deep. For each
    token: its bytes, the nodes of its tree, and how many right parts wait at most while it is taken apart."""
    made = {token: (len(said), 1, 0) for token, said in literal.items()}
    for i, pair in enumerate(pairs):
        require(all(part in made for part in pair), "a token is made of earlier ones")
        left, right = (made[part] for part in pair)
        made[first + i] = (left[0] + right[0], 1 + left[1] + right[1], max(left[2] + 1, right[2]))
    for size, nodes, depth in made.values():
        require(size <= lib.EHMN_MAX_TOKEN_BYTES, "tokens are not too long")
        require(nodes <= 2 * lib.EHMN_MAX_TOKEN_BYTES, "nor of too many parts")
        require(depth <= lib.EHMN_MAX_TOKEN_DEPTH, "nor too deep")
