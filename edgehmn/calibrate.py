"""What is measured once, on ordinary text, before a model is quantised.

Activations need no calibrated scale: every vector that enters a matrix carries its own exponent. Measured are
only the range of the hidden vector (the contract between encoder and head), the fractional bits of the
residual, and the statistics of the plastic head.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint
from edgehmn.errors import UsageError
from edgehmn.model import FloatModel, log_softmax
from edgehmn.plasticity import HeadStatistics, measure_statistics
from edgehmn.texts import CALIBRATION, shipped

CALIBRATION_TOKENS = 6144
HEADROOM = 2.0  # how far beyond the largest calibrated value a hidden vector may go before it saturates


@dataclass(frozen=True)
class Calibration:
    """value_frac: fractional bits of the residual; hidden_frac: of the hidden vector."""

    value_frac: int
    hidden_frac: int
    statistics: HeadStatistics


def calibration_ids(checkpoint: Checkpoint, text: str | None = None) -> npt.NDArray[np.int32]:
    """Tokens of the calibration text (the shipped one if none is given), at most CALIBRATION_TOKENS."""
    ids = checkpoint.encode(shipped(CALIBRATION) if text is None else text)[:CALIBRATION_TOKENS]
    if len(ids) < 256:
        raise UsageError(f"the calibration text has {len(ids)} tokens; at least 256 are needed, 6,000 are better")
    return ids


def calibrate(checkpoint: Checkpoint, ids: npt.NDArray[np.int32]) -> Calibration:
    """Run the float model over `ids` and measure."""
    model = FloatModel(checkpoint)
    hidden = model.encode(ids, model.new_state())
    largest = float(np.abs(hidden).max())
    normed = model.final_norm(hidden)
    log_p = log_softmax(model.logits(normed[:-1]))
    statistics = measure_statistics(normed[:-1], log_p, ids[1:], model.head_matrix)
    return Calibration(
        value_frac=int(np.clip(27 - np.ceil(np.log2(largest)), 8, 16)),
        hidden_frac=int(np.clip(np.floor(np.log2(32767 / (HEADROOM * largest))), 0, 14)),
        statistics=statistics,
    )
