"""What is measured once, on ordinary text, before a model is quantised.

Activations need no calibrated scale: every vector that enters a matrix carries its own exponent. Measured are
only the range of the hidden vector (the contract between encoder and head), the fractional bits of the
residual, which channels of a norm are usually larger than the others, and the statistics of the plastic head.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import LAYER_NORMS, Checkpoint, FloatArray
from edgehmn.core import lib
from edgehmn.errors import InvalidFileError, UsageError
from edgehmn.model import EncoderState, FloatModel
from edgehmn.plasticity import HeadStatistics, measure_statistics
from edgehmn.texts import CALIBRATION, shipped

CALIBRATION_TOKENS = 6144
KEY_TOKENS = 512  # whose keys are kept, at least
GUARD_VECTORS = 48  # that the guard watches on the device, at even distances in the calibration text
HEADROOM = 2.0  # how far beyond the usual largest value a hidden vector may go before it saturates
# Share of tokens whose largest value sets the range of hidden vectors. The rest saturates: the first tokens of a window
# may be some hundred times larger than all others, and their predictions are not worth the bits of those.
USUAL = 99.5
MAX_NORM_SHIFT = int(lib.EHMN_MAX_NORM_SHIFT)


@dataclass(frozen=True)
class Calibration:
    """value_frac: fractional bits of the residual; hidden_frac: of the hidden vector. guard_hidden (n, d_model): hidden
    vectors of the text that the guard watches, and guard_tokens (n,), what came after each. keys (n_layers, n, d_kv):
    of the first KEY_TOKENS, rotated. norm_shifts (n_layers, 2, d_model), 0..EHMN_MAX_NORM_SHIFT: by how many bits the
    channels of the norms before attention and MLP are shifted down, so that they are about as large."""

    value_frac: int
    hidden_frac: int
    statistics: HeadStatistics
    guard_hidden: FloatArray
    guard_tokens: npt.NDArray[np.int32]
    keys: FloatArray
    norm_shifts: npt.NDArray[np.int32]


def calibration_ids(checkpoint: Checkpoint, text: str | None = None) -> npt.NDArray[np.int32]:
    """Tokens of the calibration text (the shipped one if none is given), at most CALIBRATION_TOKENS."""
    ids = checkpoint.encode(shipped(CALIBRATION) if text is None else text)[:CALIBRATION_TOKENS]
    if len(ids) < 256:
        raise UsageError(f"the calibration text has {len(ids)} tokens; at least 256 are needed, 6,000 are better")
    return ids


def calibrate(checkpoint: Checkpoint, ids: npt.NDArray[np.int32]) -> Calibration:
    """Run the float model over `ids` and measure. Statistics that the checkpoint brings are taken as they are.

    Raises InvalidFileError if the weights, finite as they are, make no model: its outputs overflow or are all equal.
    """
    model = _Recorder(checkpoint)
    state = model.new_state()
    with np.errstate(all="ignore"):  # what overflows is found by its result
        hidden = model.encode(ids, state)
        usual = float(np.percentile(np.abs(hidden).max(-1), USUAL))
        if not (0 < usual < np.inf and 0 < state.largest < np.inf and np.isfinite(hidden).all()):
            raise InvalidFileError("the checkpoint's hidden vectors overflow, or are zero, on the calibration text")
        statistics = checkpoint_statistics(checkpoint) or head_statistics(model, hidden, ids)
    watched = np.linspace(len(ids) // 8, len(ids) - 2, GUARD_VECTORS).astype(np.int64)
    return Calibration(
        value_frac=int(np.clip(27 - np.ceil(np.log2(state.largest)), 8, 16)),
        hidden_frac=int(np.clip(np.floor(np.log2(32767 / (HEADROOM * usual))), 0, 14)),
        statistics=statistics,
        guard_hidden=hidden[watched],
        guard_tokens=ids[watched + 1],
        keys=np.stack([np.concatenate(parts) for parts in model.keys]),
        norm_shifts=np.array([[_shifts(x) for x in norms] for norms in model.norm_power], np.int32),
    )


def _shifts(power: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Of the channels of one norm, whose summed squares these are: how many times as large as the middle one they
    usually are, in bits; that one gets half of the range."""
    bits = np.log2(np.maximum(power, np.finfo(np.float64).tiny)) / 2
    shifts = np.round(bits - np.median(bits)) + MAX_NORM_SHIFT // 2
    return np.clip(shifts, 0, MAX_NORM_SHIFT).astype(np.int32)


class _Recorder(FloatModel):
    """The float model, which keeps the first keys of every layer, a list of (n, d_kv) for each, and sums the squares of
    what its two norms have normalised: norm_power (n_layers, 2, d_model)."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        c = self.config
        self.keys: list[list[FloatArray]] = [[] for _ in range(c.n_layers)]
        self.norm_power = np.zeros((c.n_layers, 2, c.d_model))

    def _attention(
        self, i: int, y: FloatArray, turn: tuple[FloatArray, FloatArray], state: EncoderState
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        attended, keys, values = super()._attention(i, y, turn, state)
        if sum(map(len, self.keys[i])) < KEY_TOKENS:
            new = keys[:, -len(y) :].transpose(1, 0, 2).reshape(len(y), -1)
            self.keys[i].append(new[:KEY_TOKENS].copy())
        return attended, keys, values

    def _apply_gain(self, name: str, x: FloatArray) -> FloatArray:
        of, *place = name.split(".")
        if of == "layers":
            self.norm_power[int(place[0]), LAYER_NORMS.index(place[1])] += np.square(x, dtype=np.float64).sum(0)
        return super()._apply_gain(name, x)


def checkpoint_statistics(checkpoint: Checkpoint) -> HeadStatistics | None:
    """The statistics that the checkpoint brings, if it does."""
    found = [checkpoint.tensors.get(name) for name in checkpoint.config.statistics_shapes()]
    if any(values is None for values in found):
        return None
    return HeadStatistics(*found)  # type: ignore[arg-type]


def head_statistics(model: FloatModel, hidden: FloatArray, ids: npt.NDArray[np.int32]) -> HeadStatistics:
    """The statistics of a text: hidden (n, d_model) as `FloatModel.encode` gives them for its tokens ids (n,).

    Raises InvalidFileError where they cannot be measured.
    """
    try:
        statistics = measure_statistics(model.final_norm(hidden[:-1]), ids[1:], model.head_matrix)
        if all(np.isfinite(values).all() for values in vars(statistics).values()):
            return statistics
    except np.linalg.LinAlgError:
        pass
    if not np.isfinite(model.log_p(hidden[:-1], ids[1:])).all():
        raise InvalidFileError("the checkpoint's predictions overflow on the calibration text")
    raise InvalidFileError("the checkpoint predicts the same for every token of the calibration text")
