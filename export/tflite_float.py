"""The encoder in float, by NumPy, over the calibration text: the largest magnitude of every value."""

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint, FloatArray
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.export.tflite_encoder import Matrix, encode

MAX_POSITIONS = 128  # of each window that is measured: all of a small model, enough of a large one
MAX_CACHE_BYTES = 96 << 20  # of all windows that are measured; a large model sees part of the text
LEAST_RANGE = 2.0**-64  # so that no product of two scales leaves float32
SIGNIFICANT_BITS = 5  # of a range, rounded up: so that processors which add in another order agree on it


def measure_ranges(checkpoint: Checkpoint, ids: npt.NDArray[np.integer]) -> list[float]:
    """Run the encoder over `ids`, cut into windows that each begin anew: all of them, or as many as memory allows, at
    even distances. The largest magnitude of each value in the order in which `encode` makes them, never zero.

    Raises UsageError for ids that are none, InvalidFileError where a value overflows.
    """
    c = checkpoint.config
    if len(ids) == 0 or min(ids) < 0 or max(ids) >= c.vocab_size:
        raise UsageError(f"calibration_ids must be at least one token, all in 0..{c.vocab_size - 1}")
    start = [] if c.start_token < 0 else [c.start_token]
    own = max(1, min(c.n_ctx, MAX_POSITIONS) - len(start))  # tokens of the text in each window
    streams = [np.array([*start, *ids[i : i + own]]) for i in range(0, len(ids), own)]
    n_measured = max(1, MAX_CACHE_BYTES // (8 * c.n_layers * c.d_kv * len(streams[0])))
    if n_measured < len(streams):
        streams = [streams[i * len(streams) // n_measured] for i in range(n_measured)]
    operations = FloatOperations(checkpoint, len(streams[0]))
    with np.errstate(all="ignore"):  # what overflows is found by its result
        for position in range(operations.n_positions):
            streams = [s for s in streams if len(s) > position]  # only the last can be shorter
            operations.begin(np.array([s[position] for s in streams]), position)
            encode(operations, checkpoint)
    ranges = np.array(operations.ranges)
    if not np.isfinite(ranges).all():
        raise InvalidFileError("the checkpoint's hidden vectors overflow on the calibration text")
    mantissa, exponent = np.frexp(np.maximum(ranges, LEAST_RANGE))
    rounded = np.ldexp(np.ceil(np.ldexp(mantissa, SIGNIFICANT_BITS)), exponent - SIGNIFICANT_BITS)
    return [float(r) for r in rounded]


class FloatOperations:
    """`Operations` on arrays with one more axis in front, of windows that are computed side by side."""

    def __init__(self, checkpoint: Checkpoint, n_positions: int) -> None:
        self._frequency = checkpoint.config.rope_frequency()
        self.n_positions = n_positions
        self.ranges: list[float] = []
        self._windows: dict[str, FloatArray] = {}

    def begin(self, tokens: npt.NDArray[np.integer], position: int) -> None:
        """The next step: `encode` is called once after this. tokens (windows,), never more than before."""
        phase = position * self._frequency
        cos, sin = np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)
        self._inputs = {"cos": np.concatenate([cos, cos]), "sin": np.concatenate([-sin, sin])}
        self._indices = {"token": tokens, "position": np.full(len(tokens), position)}
        self._position, self._n_values = position, 0

    def _record(self, x: npt.NDArray[np.floating]) -> FloatArray:
        """x, which is the next value of this step."""
        largest = float(np.abs(x).max())
        if self._n_values == len(self.ranges):
            self.ranges.append(largest)
        else:
            self.ranges[self._n_values] = float(np.maximum(self.ranges[self._n_values], largest))  # keeps NaN
        self._n_values += 1
        return np.asarray(x, np.float32)

    def embed(self, table: Matrix, index_name: str) -> FloatArray:
        ((rows, _),) = table.parts
        return np.expand_dims(rows[self._indices[index_name]], 1)

    def linear(self, x: FloatArray, weight: Matrix) -> FloatArray:
        return self._record(weight.times(x))

    def add(self, a: FloatArray, b: FloatArray) -> FloatArray:
        return self._record(a + b)

    def add_constant(self, x: FloatArray, value: FloatArray) -> FloatArray:
        return self._record(x + value)

    def multiply(self, a: FloatArray, b: FloatArray, *, limit: float = np.inf) -> FloatArray:
        return self._record(np.clip(a * b, -np.float32(limit), np.float32(limit)))

    def multiply_by_input(self, x: FloatArray, name: str) -> FloatArray:
        return self._record(x * self._inputs[name])

    def subtract_mean(self, x: FloatArray) -> FloatArray:
        return self._record(x - self._record(x.mean(-1, keepdims=True)))

    def unit(self, x: FloatArray, eps: float) -> FloatArray:
        square = self._record(np.square(x).sum(-1, keepdims=True))
        return self._record(x * self._record(1 / np.sqrt(square + np.float32(eps))))

    def logistic(self, x: FloatArray) -> FloatArray:
        return np.asarray(1 / (1 + np.exp(-x)), np.float32)

    def matmul(self, a: FloatArray, b: FloatArray) -> FloatArray:
        return self._record(a @ b.swapaxes(-1, -2))

    def softmax(self, scores: FloatArray) -> FloatArray:
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out: FloatArray = weights / weights.sum(-1, keepdims=True)
        return out

    def window(self, name: str, newest: FloatArray, axis: int) -> FloatArray:
        heads = np.squeeze(newest, axis + 1)  # (windows, heads, d_head)
        if name not in self._windows:
            self._windows[name] = np.empty((self.n_positions, *heads.shape), np.float32)
        self._windows[name][self._position, : len(heads)] = heads
        filled = self._windows[name][: self._position + 1, : len(heads)]
        return np.moveaxis(filled, 0, axis + 1)

    def reshape(self, x: FloatArray, *shape: int) -> FloatArray:
        return x.reshape(len(x), *shape)

    def slice(self, x: FloatArray, axis: int, begin: int, size: int) -> FloatArray:
        return x[(slice(None),) * (axis + 1) + (slice(begin, begin + size),)]

    def concatenate(self, parts: list[FloatArray], axis: int) -> FloatArray:
        return np.concatenate(parts, axis=axis + 1)
