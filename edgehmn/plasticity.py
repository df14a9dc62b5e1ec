"""The float meaning of the plastic head, in NumPy: four adapters, memories of words, softmax, and their rule.

The rule, for the weight from input j to unit i of an adapter (symbols as in the Trans-HMN paper):

    dw_ij = (eta_local + eta_global G') * alpha_j * e_ij * pi max(0, cos(Phi - phi_i)) - decay * w_ij

    e_ij  = post_i (psi_fast_j + kappa psi_slow_j)            eligibility, of rank one
    post  = f'(a_i) (P delta)_i,   delta = E[y] - mean of E over tokens drawn from q        "output_error"
          = z_i                                               the paper's literal reading, "hebbian", of
                                                              dense adapters; the rest learns by error
    alpha = d softmax_j(beta_attention x_j c_j)               mean one; c is a slow average of the input
    closed: units whose rate is below closed_below times the mean of all; their rows are not written
    foreseen: a token of a probability p above FORESEEN makes no error; all but n-grams and episodes learn of the others
    G'    = gamma w_reward R + (1 - gamma) w_uncertainty U + w_novelty N
            R, U, N: surprise, entropy and topic shift in standard deviations around their running means
    write : the change is made of single steps of one LSB, drawn without bias ("unbiased"; at most eight of a weight
            in one token), with the paper's probability sigmoid(beta_write (|u| - theta_write)) ("sigmoid"), or left
            real ("float")

The four adapters see four different things. The first is dense: it reads the final norm's output x. The second and
third have one row for each context, the previous token and the previous two (hashed): their alpha is one for the
context that is present and zero for all others. The fourth recalls episodes: past states like the present one, and what
came then. Beside them stand a bias of every token and a memory of n-grams. All write in parallel:

    h'     = scale h + P (sum_l g_l tanh(W_l x_l) + sum_k g_k row_k)
    logits = E h' + g_b bias + sum over n-gram hits of G[order, count]
    p      = (1 - share) q + share recalled,   q = softmax(logits),   share by the similarity of the best episode

All but the episodes learn as if there were none, from q: what leaned on an episode would be lost with it.

The gains (g, scale, G, share) are modulators: scalars that follow, token by token, what each mechanism is worth in the
present text, by the gradient of the log-probability. `follow` moves them alone, with every weight frozen: what was
learned of one text is turned down where it does not hold. W, rows and biases start at zero, so an untaught head is
exactly the frozen model.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import FloatArray
from edgehmn.memories import Bias, Episodes, Ids, NGrams, Rows, contexts
from edgehmn.model import LOG2_E, row_blocks
from edgehmn.writes import Write, Writer

WINDOW = 64  # tokens that a topic is told from
COVARIANCE_ROWS = 1024  # that are held in float64 at a time
FORESEEN = 2 / 3
FAST, SLOW = 0.05, 0.002  # rates of the two means of the input whose distance is novelty


@dataclass(frozen=True)
class Rule:
    """Parameters of the plasticity rule. The defaults are what `edgehmn export` writes into an image."""

    error: Literal["output_error", "hebbian"] = "output_error"
    eta_local: float = 4e-3  # per token, on a weight of unit scale
    eta_global: float = 4e-4  # 0 switches G' off
    gamma: float = 1.0  # share of reward against uncertainty
    w_reward: float = 1.0
    w_uncertainty: float = -0.5
    w_novelty: float = 0.0
    kappa: float = 0.0  # weight of the slow eligibility; 0 switches it off
    rho_slow: float = 0.5  # its decay per token
    beta_attention: float = 0.0  # 0 switches alpha off
    rho_context: float = 0.9  # decay of the context that alpha compares with
    phase_period: int = 0  # tokens per turn of Phi; 0 switches the gate off
    write: Write = "unbiased"
    beta_write: float = 10.0
    theta_write: float = 0.5
    decay: float = 1.5e-4  # of dense weights, per token, towards the prior, which is zero
    closed_below: float = 1.0  # a unit whose |rate| is below so many times the mean of all is closed; 0: none is
    weight_frac: int = 11  # one LSB of a dense plastic weight is 2**-weight_frac
    n_negatives: int = 16
    eta_gain: float = 0.015  # of the gains of adapters and bias
    gain_max: float = 3.0
    rho_trace: tuple[float, ...] = (0.0,)  # input trace of each dense adapter; 0 is the present token
    initial_deviation: float = 0.0  # of the first weights; the paper's is 0.1, without which "hebbian" never starts
    rho_average: float = 0.99  # running mean and variance of surprise, entropy and novelty
    row_slots: tuple[int, int] = (128, 128)  # rows by the previous token, and by the previous two; 0 is off
    eta_row: tuple[float, float] = (0.2, 0.3)  # modulated by G' as eta_local is
    row_frac: int = 6  # one LSB of a row is 2**-row_frac
    decay_visit: float = 1e-3  # of a row, each time its context comes
    bias_step: float = 0.2  # nats, on the bias of the token that came; 0 switches the bias off
    bias_decay: float = 3e-4  # per token
    ngram_slots: int = 960  # of each order; 0 is off
    ngram_orders: tuple[int, ...] = (1, 2, 3, 5)  # tokens of context
    eta_ngram: float = 0.05  # nats, of the gain of an order and count
    episodes: int = 960  # 0 is off
    sharpness: float = 20.0  # nats by which an episode of similarity 0 weighs less than one of similarity 1
    eta_episode: float = 0.01  # of the share
    eta_scale: float = 6e-4
    topic_limit: float = 1.8  # mean squared distance, in deviations within a topic, to which a topic reaches at least
    topic_margin: float = 1.25  # a known topic is entered when its distance is less by this
    guard_limit: float = 1.5  # bits by which the guard's loss may rise before the decay does; 0 switches it off


@dataclass(frozen=True)
class HeadStatistics:
    """What calibration measures once on ordinary text, for a model of width d.

    mean, inverse_deviation: (d,) of the final norm's output; preconditioner: (d, d), symmetric; topic: (d, d),
    symmetric, turns a running mean of the standardised input into units of its deviation within a topic.
    """

    mean: FloatArray
    inverse_deviation: FloatArray
    preconditioner: FloatArray
    topic: FloatArray

    @classmethod
    def neutral(cls, d: int) -> "HeadStatistics":
        """Statistics that switch centring, scaling, preconditioning and the measure of topics off."""
        eye = np.eye(d, dtype=np.float32)
        return cls(np.zeros(d, np.float32), np.ones(d, np.float32), eye, eye.copy())


class RunningScore:
    """A signal in standard deviations around its running mean, clipped to two."""

    def __init__(self, rho: float) -> None:
        self.rho, self.mean, self.variance, self.started = rho, 0.0, 0.0, False

    def __call__(self, value: float) -> float:
        if not self.started:
            self.mean, self.started = value, True
        score = min(max((value - self.mean) / (self.variance**0.5 + 2.0**-16), -2.0), 2.0)
        self.mean += (1 - self.rho) * (value - self.mean)
        self.variance += (1 - self.rho) * ((value - self.mean) ** 2 - self.variance)
        return score


class PlasticHead:
    """Adapters, memories, softmax and learning on top of final-norm outputs, one token at a time.

    `forward` predicts; then `learn` teaches what came, or `follow` moves the gains alone. A head that is copied
    (copy.deepcopy) goes on by itself. Topics, banks and the guard are the core's alone: they choose which state learns.
    """

    def __init__(self, head: FloatArray, statistics: HeadStatistics, rule: Rule, seed: int = 0) -> None:
        """head: (vocab, d)."""
        self.head, self.statistics, self.rule, self.seed = head, statistics, rule, seed
        self.rng = np.random.default_rng(seed)
        n, (vocab, d) = len(rule.rho_trace), head.shape
        first_gain = min(1.0, rule.gain_max)
        self.dense_writer, self.row_writer = (
            Writer(rule.write, 2.0**-frac, self.rng, rule.beta_write, rule.theta_write)
            for frac in (rule.weight_frac, rule.row_frac)
        )
        start = (rule.initial_deviation * self.rng.standard_normal((n, d, d))).astype(np.float32)
        self.weights = self.dense_writer.on_grid(start)
        self.gain = [first_gain] * n
        self.trace = np.zeros((n, d), np.float32)  # input of each dense adapter
        self.slow = np.zeros((n, d), np.float32)  # psi_slow
        self.context = np.zeros((n, d), np.float32)  # c
        self.phase = (self.rng.integers(0, 16, (n, d)) * (np.pi / 8)).astype(np.float32)
        self.rows = [
            Rows(k + 1, rule.row_slots[k], d, rule.eta_row[k], first_gain) for k in (0, 1) if rule.row_slots[k]
        ]
        self.bias = Bias(vocab, rule.bias_step, rule.bias_decay, first_gain) if rule.bias_step else None
        self.ngrams = [NGrams(order, rule.ngram_slots) for order in rule.ngram_orders if order and rule.ngram_slots]
        self.episodes = Episodes(rule.episodes, d, rule.sharpness) if rule.episodes else None
        self.scale = first_gain
        self.drift = np.zeros((2, d), np.float32)  # fast and slow mean of the input, for novelty
        self.reward, self.uncertainty, self.novelty = (RunningScore(rule.rho_average) for _ in range(3))
        self.time = 0  # tokens learned
        self.history: deque[int] = deque(maxlen=max(2, *rule.ngram_orders, 0))  # the newest first
        self.reset_context()

    @property
    def writes(self) -> int:
        """Single steps of a weight that were made so far."""
        return self.dense_writer.steps + self.row_writer.steps

    def reset_context(self) -> None:
        """Forget the tokens that were fed, and nothing that was learned. There is no prediction then to learn from."""
        self.history.clear()
        self.ready = False
        self.follow_rng = np.random.default_rng([self.seed, 1])  # following leaves the draws of learning as they are

    def forward(self, h: FloatArray, token: int) -> FloatArray:
        """Log-probabilities (vocab,) of what follows `token`: the one that was fed, of which h (d,) is the final
        norm's output."""
        self.history.appendleft(token)
        found = contexts(self.history)
        self.x, self.plain = standardise(h, self.statistics), h
        logits = self.head @ (self.scale * h + self.statistics.preconditioner @ self._adapters(found))
        if self.bias:
            logits += self.bias.gain * self.bias.values
        for memory in self.ngrams:
            memory.find(found)
            memory.add(logits)
        top = logits.max()
        logits -= top
        p = np.exp(logits)
        mass = float(p.sum())
        self.q: FloatArray = p * np.float32(1 / mass)
        self.log_q: FloatArray = logits - np.float32(np.log(mass))
        self.log_p, self.ready = self.log_q, True
        if self.episodes:
            mass = self.episodes.recall(self.x, p, mass)
            self.log_p = logits - np.float32(np.log(mass))
            changed = list(self.episodes.responsibility)
            self.log_p[changed] = np.log(p[changed] / mass)
        return self.log_p

    def learn(self, token: int) -> None:
        """Teach everything that `token` came after the last `forward`."""
        if not self.ready:
            return
        factor = self._factor(token)
        if not self._foreseen(token):
            self._learn_from_error(token, factor)
        self._follow_memories(token)
        for memory in self.ngrams:
            memory.learn(token)
        if self.episodes:
            self.episodes.learn(token)
        for weights in self.weights:  # one row per token, with the decay of as many tokens as there are rows
            self.dense_writer.decay(weights[self.time % len(weights)], len(weights) * self.rule.decay)
        if self.bias:
            self.bias.fade(self.time)
        self.time += 1

    def follow(self, token: int) -> None:
        """Let the gains follow that `token` came; weights, rows, biases, n-grams and episodes stay."""
        if self.ready:
            if not self._foreseen(token):
                self._follow_error(token, self._negatives(self.follow_rng))
            self._follow_memories(token)

    def _foreseen(self, token: int) -> bool:
        return float(self.log_p[token]) > np.log(FORESEEN)

    def _adapters(self, found: list[int]) -> FloatArray:
        """What dense adapters and rows say together (d,), before the preconditioner."""
        total = np.zeros(len(self.x), np.float32)
        self.z = []
        for layer, (rho, weights) in enumerate(zip(self.rule.rho_trace, self.weights, strict=True)):
            self.trace[layer] = rho * self.trace[layer] + (1 - rho) * self.x if rho else self.x
            z = np.tanh(weights @ self.trace[layer])
            total += self.gain[layer] * z
            self.z.append(z)
        for rows in self.rows:
            rows.find(found)
            if rows.row is not None:
                total += rows.gain * rows.row
        return total

    def _negatives(self, rng: np.random.Generator) -> Ids:
        """Tokens drawn from q by systematic sampling: one uniform number, equally spaced quantiles."""
        n = self.rule.n_negatives
        cumulative = np.cumsum(self.q, dtype=np.float64)
        quantiles = (rng.random() + np.arange(n)) / n * cumulative[-1]
        return np.minimum(np.searchsorted(cumulative, quantiles, side="right"), len(cumulative) - 1)

    def _follow_error(self, token: int, negatives: Ids) -> FloatArray:
        """Move the gains that an error moves by the gradient of the log-probability of `token`; returns the
        error P delta (d,)."""
        r = self.rule
        delta = self.head[token] - self.head[negatives].mean(0)
        error: FloatArray = self.statistics.preconditioner @ delta
        for layer, z in enumerate(self.z):
            self.gain[layer] = min(max(self.gain[layer] + r.eta_gain * float(z @ error), 0.0), r.gain_max)
        for rows in self.rows:
            rows.follow(error, r.eta_gain, r.gain_max)
        if self.bias:
            self.bias.follow(token, negatives, r.eta_gain, r.gain_max)
        self.scale = min(max(self.scale + r.eta_scale * float(self.plain @ delta), 0.0), r.gain_max)
        return error

    def _follow_memories(self, token: int) -> None:
        for memory in self.ngrams:
            memory.follow(token, self.q, self.rule.eta_ngram)
        if self.episodes:
            self.episodes.follow(token, self.rule.eta_episode)

    def _learn_from_error(self, token: int, factor: float) -> None:
        negatives = self._negatives(self.rng)
        error = self._follow_error(token, negatives)
        for layer in range(len(self.weights)):
            self._learn_dense(layer, error, factor)
        for rows in self.rows:
            rows.learn(error, factor, self.rule.decay_visit, self.row_writer)
        if self.bias:
            self.bias.learn(token, negatives)

    def _factor(self, token: int) -> float:
        """By what G' multiplies the rates: 1 + eta_global / eta_local G', not below zero. Its signals are in bits."""
        r = self.rule
        if r.eta_global == 0 or r.eta_local == 0:
            return 1.0
        g = r.gamma * r.w_reward * self.reward(-float(self.log_q[token]) * LOG2_E)
        if r.gamma < 1 and r.w_uncertainty:
            g += (1 - r.gamma) * r.w_uncertainty * self.uncertainty(-float(self.q @ self.log_q) * LOG2_E)
        if r.w_novelty:
            self.drift += np.array([[FAST], [SLOW]], np.float32) * (self.x - self.drift)
            shift = self.drift[0] - self.drift[1]
            g += r.w_novelty * self.novelty(float(shift @ shift) / len(shift))
        return max(0.0, 1 + r.eta_global / r.eta_local * g)

    def _learn_dense(self, layer: int, error: FloatArray, factor: float) -> None:
        r, z, weights = self.rule, self.z[layer], self.weights[layer]
        post = z if r.error == "hebbian" else error * (1 - z * z)
        rate = r.eta_local * factor * post * self._gate(layer)
        size = np.abs(rate)
        rate[size < r.closed_below * size.mean()] = 0.0
        self.dense_writer.add(weights, rate, self._presynaptic(layer))

    def _presynaptic(self, layer: int) -> FloatArray:
        r, x = self.rule, self.trace[layer]
        pre = x
        if r.kappa:
            self.slow[layer] += (1 - r.rho_slow) * (x - self.slow[layer])
            pre = pre + r.kappa * self.slow[layer]
        if r.beta_attention:
            self.context[layer] += (1 - r.rho_context) * (x - self.context[layer])
            score = r.beta_attention * x * self.context[layer]
            score = np.exp(score - score.max())
            pre = pre * (len(x) * score / score.sum())
        return pre

    def _gate(self, layer: int) -> FloatArray | float:
        if not self.rule.phase_period:
            return 1.0
        phi = 2 * np.pi * (self.time % self.rule.phase_period) / self.rule.phase_period
        gate: FloatArray = np.pi * np.maximum(0, np.cos(phi - self.phase[layer]))
        return gate


def standardise(normed: FloatArray, statistics: HeadStatistics) -> FloatArray:
    """The input x (..., d) of the adapters, from the final norm's output: centred, scaled, of mean square one."""
    x = (normed - statistics.mean) * statistics.inverse_deviation
    square = np.mean(np.square(x), -1, keepdims=True)
    out: FloatArray = (x / np.sqrt(np.where(square > 0, square, 1))).astype(np.float32)
    return out


def measure_statistics(normed: FloatArray, targets: npt.NDArray[np.integer], head: FloatArray) -> HeadStatistics:
    """Statistics of the head (vocab, d) on ordinary text: final-norm outputs (n, d), and what came after each, (n,).

    The preconditioner is (C + 0.3 m I)**-1/2 of the covariance C of the output error with mean eigenvalue m:
    directions in which errors are common are damped, rare ones are heard. It is scaled so that learning one token at
    rate eta raises that token's logit, for the same input, by eta d on average: rates mean the same in every model.
    Outputs that overflow give statistics that are not finite, or numpy.linalg.LinAlgError.
    """
    n, d = normed.shape
    square, taught = np.zeros((d, d)), np.zeros((d, d))  # of the error; of the error with the target's row of the head
    for start, stop in row_blocks(n, len(head)):
        p = normed[start:stop] @ head.T
        p -= p.max(-1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(-1, keepdims=True)
        wanted = head[targets[start:stop]].astype(np.float64)
        delta = wanted - p @ head
        square += delta.T @ delta
        taught += wanted.T @ delta
    preconditioner = inverse_root(square / n, 0.3)
    response = np.sum((preconditioner @ taught) * preconditioner) / n
    preconditioner /= np.sqrt(response)
    centre, scale = normed.mean(0).astype(np.float32), (1 / (normed.std(0) + 1e-6)).astype(np.float32)
    plain = HeadStatistics(centre, scale, preconditioner.astype(np.float32), np.eye(len(centre), dtype=np.float32))
    return replace(plain, topic=topic_matrix(standardise(normed, plain)))


def topic_matrix(x: FloatArray) -> FloatArray:
    """(S + 0.1 m I)**-1/2 of the covariance S of means over WINDOW tokens of x (n, d) within a topic, with mean
    eigenvalue m. S is half the covariance of the difference of neighbouring windows, which hardly sees the few changes
    of topic between them.

    Few windows say little of d directions, so S is drawn towards the covariance of single tokens, scaled to the same
    variance, as if that had been seen 2 d times. Fewer than four windows do not even say the variance: it is then
    that of independent tokens.
    """
    n, d = len(x) // WINDOW, x.shape[1]
    single = covariance(x)
    means = x[: n * WINDOW].reshape(n, WINDOW, d).mean(1)
    windows = covariance(np.diff(means, axis=0)) / 2 if n > 1 else np.zeros_like(single)
    ratio = np.trace(windows) / np.trace(single) if n >= 4 else 1 / WINDOW
    return inverse_root((n * windows + 2 * d * ratio * single) / (n + 2 * d), 0.1).astype(np.float32)


def covariance(x: FloatArray) -> npt.NDArray[np.float64]:
    """(d, d) of the rows of x (n, d)."""
    mean = x.mean(0, dtype=np.float64)
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), COVARIANCE_ROWS):
        centred = x[start : start + COVARIANCE_ROWS] - mean
        total += centred.T @ centred
    return total / len(x)


def inverse_root(matrix: npt.NDArray[np.float64], ridge: float) -> npt.NDArray[np.float64]:
    """(matrix + ridge m I)**-1/2 of a symmetric matrix with mean eigenvalue m; symmetric."""
    values, vectors = np.linalg.eigh(matrix)
    out: npt.NDArray[np.float64] = (vectors * (values + ridge * values.mean()) ** -0.5) @ vectors.T
    return out
