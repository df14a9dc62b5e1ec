"""The float rule on real text, with the reference model: what it gains, what int8 keeps of that, and whether the C core
means the same by it."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edgehmn.calibrate import calibrate, calibration_ids
from edgehmn.checkpoint import REFERENCE, read_checkpoint
from edgehmn.core import CoreModel, Image, ffi
from edgehmn.image import build_image
from edgehmn.model import LOG2_E, FloatModel, log_softmax
from edgehmn.plasticity import PlasticHead, Rule
from edgehmn.quantize import quantise
from edgehmn.texts import EVALUATION, PERSONAL, shipped
from tests.models import NOTHING

TOKENS = 1200  # of the diary
SIGNAL_TOKENS = 5000  # of the evaluation text
Losses = npt.NDArray[np.float64]


class Reference:
    """The reference model, and the beginning of the shipped diary as its float head sees it."""

    def __init__(self) -> None:
        self.checkpoint = read_checkpoint(REFERENCE)
        self.model = FloatModel(self.checkpoint)
        self.calibration = calibrate(self.checkpoint, calibration_ids(self.checkpoint)[:512])
        self.ids = self.checkpoint.encode(shipped(PERSONAL))[:TOKENS]
        self.normed = self.model.final_norm(self.model.encode(self.ids, self.model.new_state()))

    def static(self) -> Losses:
        """Nats of each token but the first."""
        log_p = log_softmax(self.model.logits(self.normed[:-1]))
        out: Losses = -log_p[np.arange(len(log_p)), self.ids[1:]].astype(np.float64)
        return out

    def online(self, rule: Rule, taught: npt.NDArray[np.integer] | None = None) -> Losses:
        """The same while learning; `taught` are learned instead of what comes."""
        head = PlasticHead(self.model.head_matrix, self.calibration.statistics, rule)
        out, ids = [], self.ids.tolist()
        for i, target in enumerate(ids[1:] if taught is None else taught[1:].tolist()):
            out.append(-float(head.forward(self.normed[i], ids[i])[ids[i + 1]]))
            head.learn(target)
        return np.array(out)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def test_int8_keeps_97_per_cent_of_the_gain(reference: Reference) -> None:
    """Of the float rule with real weights: the same with int8 weights, and the C core, where everything is integer."""
    static = float(reference.static().mean())
    gain = {write: static - float(reference.online(Rule(write=write)).mean()) for write in ("float", "unbiased")}
    assert gain["float"] > 0.4, "nats per token"
    assert gain["unbiased"] > 0.97 * gain["float"]
    image = Image(build_image(quantise(reference.checkpoint, reference.calibration)))
    before, after = (CoreModel(image).process(reference.ids, learn=learn)[1:].mean() for learn in (False, True))
    assert (before - after) / 2**16 / LOG2_E > 0.97 * gain["float"]


def test_shuffled_targets_give_no_gain(reference: Reference) -> None:
    """The same tokens, each as often, but taught in another order: nothing about what follows can be known by that."""
    shuffled = reference.online(Rule(), np.random.default_rng(1).permutation(reference.ids))
    assert shuffled.mean() > reference.static().mean()


@pytest.mark.parametrize("mechanism", ["eta_local", "row_slots", "bias_step", "ngram_slots", "episodes", "eta_scale"])
def test_each_mechanism_gains_alone(reference: Reference, mechanism: str) -> None:
    rule = Rule(**NOTHING | {mechanism: getattr(Rule(), mechanism)})
    assert reference.online(rule).mean() < reference.static().mean()


def test_signals_of_the_core_follow_those_of_the_float_model(reference: Reference) -> None:
    """Reward, uncertainty and novelty on 5,000 tokens, with a rate so small that nothing else can differ, and with the
    head's rounded weights on both sides. A score is rounded in its logits (1/256 bit), and a running mean or variance
    stands still while it is nearer than 50 / 65536 to what it follows."""
    eta = 2.0**-24
    rule = Rule(**NOTHING | {"eta_local": eta, "eta_global": eta, "gamma": 0.5, "w_novelty": 1.0, "guard_limit": 0.0})
    quantised = quantise(reference.checkpoint, reference.calibration, rule)
    core = CoreModel(Image(build_image(quantised)))
    rounded = quantised.matrices[7 * reference.checkpoint.config.n_layers].real()
    head = PlasticHead(rounded, reference.calibration.statistics, replace(rule, write="float"))
    ids = reference.checkpoint.encode(shipped(EVALUATION))[:SIGNAL_TOKENS].tolist()
    scores = np.empty((len(ids) - 1, 2))
    averages = []
    for i in range(len(ids) - 1):
        hidden = core.encode(ids[i])
        core.head(ids[i], hidden)
        normed = reference.model.final_norm(hidden / np.float32(2.0**reference.calibration.hidden_frac))
        log_p = head.forward(normed, ids[i])
        scores[i] = core.score(ids[i + 1]) / 2**16, -log_p[ids[i + 1]] * LOG2_E
        core.learn(ids[i + 1])
        head.learn(ids[i + 1])
        if i % 50 == 49:
            delta = ffi.from_buffer("ehmn_delta *", core.save())
            signals = (delta.reward, head.reward), (delta.uncertainty, head.uncertainty), (delta.novelty, head.novelty)
            scales = (2**16, 2**16), (2**16, 2**16), (2**24, 2**32)
            averages.append(
                [
                    [a.mean / mean - b.mean, a.variance / variance - b.variance]
                    for (a, b), (mean, variance) in zip(signals, scales, strict=True)
                ]
            )
    assert np.abs(scores[:, 0] - scores[:, 1]).max() < 8 / 256
    farthest = np.abs(averages).max(0) - 50 / 65536
    assert (farthest[0] < (0.01, 0.05)).all(), "reward, bits"
    assert (farthest[1] < (0.01, 0.05)).all(), "uncertainty, bits"
    assert (np.abs(averages).max(0)[2] < (1e-4, 1e-4)).all(), "novelty"
