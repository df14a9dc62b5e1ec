"""What a way of adapting costs beside the static model."""

from dataclasses import dataclass

from edgehmn.checkpoint import Config


@dataclass(frozen=True)
class Cost:
    """Added to the static model, per token scored and learned.

    macs: multiply-accumulates, of the algorithm and not of how NumPy happens to do it; exponentials and look-ups are
    not counted. state_bytes: what is learned and must be kept, as run here. constant_bytes: read-only tables beside
    the model, its own weights excluded. work_bytes: needed only while a step is computed, activations excluded.
    """

    macs: float
    state_bytes: int
    constant_bytes: int = 0
    work_bytes: int = 0


def static_macs(c: Config) -> int:
    """MACs per token of the frozen model: matrices, attention over a full window, head."""
    return encoder_weights(c) + attention_macs(c) + head_macs(c)


def encoder_weights(c: Config) -> int:
    """Weights of the matrices of all layers: as many MACs per token."""
    return c.n_layers * (2 * c.d_model**2 + 2 * c.d_kv * c.d_model + 3 * c.d_model * c.d_hidden)


def attention_macs(c: Config) -> int:
    """Scores and weighted sums over n_ctx positions."""
    return 2 * c.n_layers * c.n_ctx * c.d_model


def head_macs(c: Config) -> int:
    return c.vocab_size * c.d_model
