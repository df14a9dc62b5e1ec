"""The float meaning of the plastic head, in NumPy: four HMN adapters, softmax, and the rule that teaches them.

The rule, for the weight from input j to unit i of an adapter (symbols as in the Trans-HMN paper):

    dw_ij = (eta_local + eta_global G') * alpha_j * e_ij * pi max(0, cos(Phi - phi_i)) - decay * w_ij

    e_ij  = post_i (psi_fast_j + kappa psi_slow_j)            eligibility, of rank one
    post  = f'(a_i) (P delta)_i,   delta = E[y] - mean of E over tokens drawn from p        "output_error"
          = z_i                                               the paper's literal reading, "hebbian"
    alpha = d softmax_j(beta_attention x_j c_j)               mean one; c is a slow average of the input
    G'    = gamma w_reward R + (1 - gamma) w_uncertainty U + w_novelty N
            R, U, N: surprise, entropy and topic shift in standard deviations around their running means
    write : the change is made of single steps of one LSB, drawn without bias ("unbiased"), with the paper's
            probability sigmoid(beta_write (|u| - theta_write)) ("sigmoid"), or left real ("float")

Every symbol can be switched off by its parameter; DESIGN.md says what each is worth. All adapters read the
final norm's output, each through a trace of its own time constant, and write to the residual in parallel:
h' = h + P sum_l g_l tanh(W_l x_l). W starts at zero, so an untaught head is exactly the frozen model.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import FloatArray
from edgehmn.model import LOG2_E, log_softmax


@dataclass(frozen=True)
class Rule:
    """Parameters of the plasticity rule. The defaults are what `edgehmn export` writes into an image."""

    error: Literal["output_error", "hebbian"] = "output_error"
    eta_local: float = 2e-3  # per token, on a weight of unit scale
    eta_global: float = 5e-4  # 0 switches G' off
    gamma: float = 1.0  # share of reward against uncertainty
    w_reward: float = 1.0
    w_uncertainty: float = -0.5
    w_novelty: float = 0.0
    kappa: float = 0.0  # weight of the slow eligibility; 0 switches it off
    rho_slow: float = 0.5  # its decay per token
    beta_attention: float = 0.0  # 0 switches alpha off
    rho_context: float = 0.9  # decay of the context that alpha compares with
    phase_period: int = 0  # tokens per turn of Phi; 0 switches the gate off
    write: Literal["unbiased", "sigmoid", "float"] = "unbiased"
    beta_write: float = 10.0
    theta_write: float = 0.5
    decay: float = 1e-4  # per token, towards the prior, which is zero
    weight_frac: int = 10  # one LSB of a plastic weight is 2**-weight_frac
    n_negatives: int = 16
    eta_gain: float = 0.03
    gain_max: float = 3.0
    rho_trace: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)  # input trace of each adapter; 0 is the present token
    initial_deviation: float = 0.0  # of the first weights; the paper's is 0.1, without which "hebbian" never starts
    rho_average: float = 0.99  # running mean and variance of surprise, entropy and novelty


@dataclass(frozen=True)
class HeadStatistics:
    """What calibration measures once on ordinary text, for a model of width d.

    mean, inverse_deviation: (d,) of the final norm's output; preconditioner: (d, d), symmetric.
    """

    mean: FloatArray
    inverse_deviation: FloatArray
    preconditioner: FloatArray

    @classmethod
    def neutral(cls, d: int) -> "HeadStatistics":
        """Statistics that switch centring, scaling and preconditioning off."""
        return cls(np.zeros(d, np.float32), np.ones(d, np.float32), np.eye(d, dtype=np.float32))


class RunningScore:
    """A signal in standard deviations around its running mean, clipped to two."""

    def __init__(self, rho: float) -> None:
        self.rho, self.mean, self.variance, self.started = rho, 0.0, 1.0, False

    def __call__(self, value: float) -> float:
        if not self.started:
            self.mean, self.started = value, True
        score = float(np.clip((value - self.mean) / np.sqrt(self.variance + 1e-6), -2, 2))
        self.mean += (1 - self.rho) * (value - self.mean)
        self.variance += (1 - self.rho) * ((value - self.mean) ** 2 - self.variance)
        return score


class PlasticHead:
    """Adapters, softmax and learning on top of final-norm outputs, one token at a time.

    head: (vocab, d). `forward(h)` gives log-probabilities of the next token; `learn(token)` then teaches it.
    """

    def __init__(self, head: FloatArray, statistics: HeadStatistics, rule: Rule, seed: int = 0) -> None:
        self.head, self.statistics, self.rule = head, statistics, rule
        self.rng = np.random.default_rng(seed)
        n, d = len(rule.rho_trace), head.shape[1]
        self.weights = (rule.initial_deviation * self.rng.standard_normal((n, d, d))).astype(np.float32)
        self.gain = np.ones(n, np.float32)
        self.trace = np.zeros((n, d), np.float32)  # input of each adapter
        self.slow = np.zeros((n, d), np.float32)  # psi_slow
        self.context = np.zeros((n, d), np.float32)  # c
        self.topic = np.zeros((2, d), np.float32)  # fast and slow mean of the input, for novelty
        self.phase = self.rng.integers(0, 16, (n, d)) * (np.pi / 8)
        self.reward, self.uncertainty, self.novelty = (RunningScore(rule.rho_average) for _ in range(3))
        self.time = 0
        self.writes = 0

    def forward(self, h: FloatArray) -> FloatArray:
        """Log-probabilities (vocab,) of the next token, from the final norm's output (d,)."""
        s = self.statistics
        x = (h - s.mean) * s.inverse_deviation
        x = x / np.sqrt(np.mean(x * x) + np.float32(1e-5))
        rho = np.array(self.rule.rho_trace, np.float32)[:, None]
        self.trace = rho * self.trace + (1 - rho) * x
        self.x, self.h = x, h
        self.z = np.tanh(np.einsum("lij,lj->li", self.weights, self.trace))
        self.adapted = h + s.preconditioner @ (self.gain @ self.z)
        self.log_p: FloatArray = log_softmax(self.head @ self.adapted)
        return self.log_p

    def learn(self, token: int) -> None:
        """Teach the adapters that `token` came after the last `forward`."""
        r = self.rule
        delta = self.head[token] - self.head[self._negatives()].mean(0)
        error = self.statistics.preconditioner @ delta
        rate = max(0.0, r.eta_local + r.eta_global * self._modulator(token))
        for layer in range(len(self.weights)):
            post = self.z[layer] if r.error == "hebbian" else error * (1 - self.z[layer] ** 2)
            pre = self._presynaptic(layer)
            change = rate * np.outer(post * self._gate(layer), pre)
            self._write(layer, change)
        gain = self.gain + r.eta_gain * (self.z @ error)
        self.gain = np.clip(gain, 0, r.gain_max).astype(np.float32)
        self.time += 1

    def _negatives(self) -> npt.NDArray[np.int64]:
        """Tokens drawn from p by systematic sampling: one uniform number, equally spaced quantiles."""
        n = self.rule.n_negatives
        cumulative = np.cumsum(np.exp(self.log_p.astype(np.float64)))
        quantiles = (self.rng.random() + np.arange(n)) / n * cumulative[-1]
        return np.minimum(np.searchsorted(cumulative, quantiles, side="right"), len(cumulative) - 1)

    def _modulator(self, token: int) -> float:
        """G', from signals that are measured in bits."""
        r = self.rule
        if r.eta_global == 0:
            return 0.0
        surprise = self.reward(-float(self.log_p[token]) * LOG2_E)
        entropy = -float(np.exp(self.log_p) @ self.log_p) * LOG2_E if r.gamma < 1 else 0.0
        g = r.gamma * r.w_reward * surprise + (1 - r.gamma) * r.w_uncertainty * self.uncertainty(entropy)
        if r.w_novelty:
            self.topic += np.array([[0.05], [0.002]], np.float32) * (self.x - self.topic)
            shift = self.topic[0] - self.topic[1]
            g += r.w_novelty * self.novelty(float(np.mean(shift * shift)))
        return g

    def _presynaptic(self, layer: int) -> FloatArray:
        r, x = self.rule, self.trace[layer]
        pre = x
        if r.kappa:
            self.slow[layer] += (1 - r.rho_slow) * (x - self.slow[layer])
            pre = pre + r.kappa * self.slow[layer]
        if r.beta_attention:
            self.context[layer] += (1 - r.rho_context) * (x - self.context[layer])
            score = np.exp(r.beta_attention * x * self.context[layer])
            pre = pre * (len(x) * score / score.sum())
        return pre

    def _gate(self, layer: int) -> FloatArray | float:
        if not self.rule.phase_period:
            return 1.0
        phi = 2 * np.pi * self.time / self.rule.phase_period
        gate: FloatArray = np.pi * np.maximum(0, np.cos(phi - self.phase[layer]))
        return gate

    def _write(self, layer: int, change: npt.NDArray[Any]) -> None:
        r, w = self.rule, self.weights[layer]
        if r.write == "float":
            w += change - r.decay * w
            return
        lsb = 2.0**-r.weight_frac
        steps = change / lsb
        if r.write == "unbiased":
            events = draw_events(steps, self.rng.random())
        else:
            open_ = self.rng.random(steps.shape) < 1 / (1 + np.exp(-r.beta_write * (abs(steps) - r.theta_write)))
            events = np.where(open_, np.sign(steps), 0)
        row = self.time % len(w)  # decay visits one row per token, with the decay of len(w) tokens
        events[row] -= draw_events(w[row] * (len(w) * r.decay / lsb), self.rng.random())
        self.writes += int(np.abs(events).sum())
        np.clip(w + events * lsb, -127 * lsb, 127 * lsb, out=w)


def draw_events(expected: npt.NDArray[Any], offset: float) -> FloatArray:
    """Whole numbers whose mean over a uniform `offset` in [0, 1) is `expected`: systematic sampling.

    The absolute values are laid end to end on a line; an event falls on every point offset + 0, 1, 2, ...,
    and belongs to the entry on whose stretch it falls.
    """
    edge = np.ceil(np.cumsum(np.abs(expected), dtype=np.float64) - offset)  # points before the end of each stretch
    counts = np.diff(edge, prepend=0.0).reshape(expected.shape)
    out: FloatArray = (np.sign(expected) * counts).astype(np.float32)
    return out


def measure_statistics(
    normed: FloatArray, log_p: FloatArray, targets: npt.NDArray[np.integer], head: FloatArray
) -> HeadStatistics:
    """Statistics of the head on ordinary text: final-norm outputs (n, d), log-probabilities (n, vocab), targets (n,).

    The preconditioner is (C + 0.3 m I)**-1/2 of the covariance C of the output error with mean eigenvalue m:
    directions in which errors are common are damped, rare ones are heard. It is scaled so that learning one token at
    rate eta raises that token's logit, for the same input, by eta d on average: rates mean the same in every model.
    """
    delta = head[targets] - np.exp(log_p) @ head
    covariance = delta.T.astype(np.float64) @ delta / len(delta)
    values, vectors = np.linalg.eigh(covariance)
    inverse_root = (values + 0.3 * values.mean()) ** -0.5
    preconditioner = (vectors * inverse_root) @ vectors.T
    response = np.mean(np.sum((head[targets] @ preconditioner) * (delta @ preconditioner), axis=-1))
    preconditioner /= np.sqrt(response)
    deviation = normed.std(0) + 1e-6
    return HeadStatistics(
        normed.mean(0).astype(np.float32), (1 / deviation).astype(np.float32), preconditioner.astype(np.float32)
    )
