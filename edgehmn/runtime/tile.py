"""The Runtime of a simulated memristive target: the C core with the products of its matrices taken from tiles.

The core takes its inner loops from a table. Here that table is a copy whose products of the model's matrices and of the
plastic weights go to tiles; all other arithmetic is the core's own. So tiles that compute exactly give the core's own
bits. Everything is simulated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel, Image, ffi
from edgehmn.errors import UsageError
from edgehmn.evaluate import Progress, no_progress
from edgehmn.runtime.protocol import Counts
from edgehmn.runtime.tile_plastic import PlasticWeights
from edgehmn.runtime.tile_products import Products
from edgehmn.streams import BLOCK, HiddenStream
from edgehmn.targets.memristive.cells import WriteCounts
from edgehmn.targets.memristive.energy import TileCost, TileUse, price
from edgehmn.targets.memristive.mapping import TileSetup
from edgehmn.targets.memristive.presets import Preset
from edgehmn.targets.memristive.tiles import TiledMatrix

LARGEST = 127
LARGEST_OF_4_BITS = 7
MATRICES_PER_LAYER = 7
SHARE_AN_INPUT = ((0, 1, 2), (3,), (5, 4), (6,))  # q, k, v; o; up and gate; down: in the order of the core


@dataclass(frozen=True)
class EncoderUse:
    """What one token's encoding did."""

    passes: float = 0.0
    digital_macs: float = 0.0


class TileRuntime:
    """An image whose matrices lie on simulated tiles. Scores, learning and the delta are those of CoreModel."""

    def __init__(
        self,
        image: Image,
        target: str | Preset = "hermes",
        setup: TileSetup | None = None,
        *,
        seed: int = 0,
        seconds_per_token: float = 0.1,
        age_s: float = 3600.0,
    ) -> None:
        """target: a preset or its name. seed: of draws and of devices. age_s: since the frozen matrices were
        programmed. Raises UsageError as TileSetup.of, and for adapters on tiles of an image that has none."""
        setup = setup or TileSetup()
        mapping = setup.mapping
        self.image, self.image_id = image, image.id
        self.preset = setup.of(target)
        h = image.header
        if mapping == "adapters" and not (h.n_dense or any(h.rule.row_slots)):
            raise UsageError("--mapping adapters: this export has no adapters, its rule learns with digital memories")
        self.seconds_per_token = seconds_per_token
        self._core = CoreModel(image, seed=seed)
        self._products = Products(self._core)
        self._rng = np.random.default_rng([seed, 1])
        self._frozen: list[TiledMatrix] = []
        self._encoder = EncoderUse()
        self._given = 0  # tokens whose hidden vectors came from elsewhere
        if mapping != "adapters":
            self._map_frozen(age_s)
        plastic_rng = np.random.default_rng([seed, 2])
        self._plastic = (
            PlasticWeights(self._core, self._products, self.preset, setup, plastic_rng)
            if mapping != "encoder"
            else None
        )

    def _map_frozen(self, age_s: float) -> None:
        h = self.image.header
        records = ffi.cast("const ehmn_matrix *", self.image.pointer + h.matrices_offset)
        n = int(h.n_layers) * MATRICES_PER_LAYER
        for first in range(0, n, MATRICES_PER_LAYER):
            for group in SHARE_AN_INPUT:
                self._map_group([records[first + i] for i in group], age_s)
        self._map_group([records[n + (not h.tied_head)]], age_s)

    def _map_group(self, records: list[Any], age_s: float) -> None:
        """Matrices with one input, side by side on the columns of their tiles."""
        records = [r for r in records if r.rows]
        bits = {int(r.weight_bits) for r in records}
        if len(bits) > 1:
            for r in records:
                self._map_group([r], age_s)
            return
        top = LARGEST if bits == {8} else LARGEST_OF_4_BITS
        together = np.concatenate([_weights(self.image.bytes, r) for r in records])
        matrix = TiledMatrix(together, self.preset, self._rng, top=top, fill=True)
        matrix.advance(age_s)
        self._frozen.append(matrix)
        base, first = int(ffi.cast("uintptr_t", self.image.pointer)), 0
        for r in records:
            self._products.take(base + r.weights_offset, r.rows, _row_bytes(r), matrix, first)
            first += int(r.rows)

    @property
    def core(self) -> CoreModel:
        """The model whose products the tiles take, as long as this runtime is kept. Plastic weights follow what is
        learned only through `process`."""
        return self._core

    def process(self, ids: npt.NDArray[np.integer], *, learn: bool, follow: bool = False) -> npt.NDArray[np.uint32]:
        scores = np.empty(len(ids), np.uint32)
        for i, token in enumerate(ids.tolist()):
            scores[i] = self._core.score(token)
            self.attend(token, learn=learn, follow=follow)
            self._feed(token)
        return scores

    def score(self, token: int) -> int:
        return self._core.score(token)

    def sample(self, temperature: float = 0.0) -> int:
        return self._core.sample(temperature)

    def attend(self, token: int, *, learn: bool, follow: bool) -> None:
        """Let the prediction meet the token that came, as CoreModel.attend."""
        if not learn or self._plastic is None:
            self._core.attend(token, learn=learn, follow=follow)
            return
        self._plastic.before_learning()
        self._core.learn(token)
        self._plastic.after_learning()

    def head(self, token: int, hidden: npt.NDArray[np.int16]) -> None:
        """Predict from the hidden vector (d_model,) that a runtime on equal tiles, or the digital core, encoded."""
        self._given += 1
        self._feed(token, hidden)

    def _feed(self, token: int, hidden: npt.NDArray[np.int16] | None = None) -> None:
        if self._plastic is not None:
            self._plastic.before_step(token)
        if hidden is None:
            self._core.step(token)
        else:
            self._core.head(token, hidden)
        if self._plastic is not None:
            self._plastic.after_step()
        self.advance(self.seconds_per_token)

    def encode_stream(self, ids: npt.NDArray[np.int32], progress: Progress = no_progress) -> HiddenStream:
        """The hidden vectors of a text, from an empty context, by what lies on these tiles: the frozen part of any
        number of runs that learn it, which `head` is given."""
        self._core.reset()
        hidden = np.empty((len(ids), int(self.image.header.d_model)), np.int16)
        for i, token in enumerate(ids.tolist()):
            hidden[i] = self._core.encode(token)
            self.advance(self.seconds_per_token)
            if i % BLOCK == BLOCK - 1:
                progress(BLOCK)
        progress(len(ids) % BLOCK)
        return HiddenStream(self.image, ids, hidden)

    def encoder_use(self) -> EncoderUse:
        """What a token's encoding has cost here, on average: of a runtime that has done nothing but `encode_stream`."""
        use = self.use()
        n = max(1, use.tokens)
        return EncoderUse(use.passes / n, use.digital_macs / n)

    def encoded_by(self, use: EncoderUse) -> None:
        """What tokens whose hidden vectors are given count as."""
        self._encoder = use

    def advance(self, seconds: float) -> None:
        """Let time pass, as in a pause: conductances drift."""
        for matrix in self._frozen:
            matrix.advance(seconds)
        if self._plastic:
            for matrix in self._plastic.matrices:
                matrix.advance(seconds)

    @property
    def matrices(self) -> list[TiledMatrix]:
        """Everything that lies on tiles, the frozen matrices first."""
        return self._frozen + (self._plastic.matrices if self._plastic else [])

    @property
    def tiles(self) -> int:
        return sum(m.tiles for m in self.matrices)

    def generate(self, n: int, *, temperature: float = 0.0) -> npt.NDArray[np.int32]:
        return self._core.generate(n, temperature=temperature, feed=self._feed)

    def reset(self) -> None:
        self._core.reset()
        if self._plastic:
            self._plastic.forget_context()

    def forget(self, seed: int) -> None:
        self._core.forget(seed)
        if self._plastic:
            self._plastic.reprogram()

    def save(self) -> bytes:
        return self._core.save()

    def load(self, delta: bytes) -> None:
        self._core.load(delta)
        if self._plastic:
            self._plastic.reprogram()

    def counts(self) -> Counts:
        return self._core.counts()

    def use(self) -> TileUse:
        """What was done on tiles since the runtime was opened."""
        counts, h = self._core.counts(), self.image.header
        writes, wear = WriteCounts(), np.zeros(0, np.uint32)
        dense: list[TiledMatrix] = []
        if self._plastic:
            dense = self._plastic.dense
            for matrix in self._plastic.matrices:
                writes.add(matrix.write_counts())
            wear = np.concatenate([m.wear() for m in self._plastic.matrices])
        on_tiles = sum(m.reads.vectors * m.inputs * m.outputs for m in [*self._frozen, *dense])
        d, learned = int(h.d_model), counts.learned
        # Learning: P once (d^2), the rows of the negatives and of the token, gains; the rest of the digital work is
        # the forward pass.
        learning = learned * (d * d + (int(h.rule.n_negatives) + 1) * d + 8 * d)
        serial = int(h.n_layers) * len(SHARE_AN_INPUT) + 1 if self._frozen else 0
        serial = (serial + (2 if self._plastic else 0)) * self.preset.converters.input_slices
        tokens = counts.steps + self._given
        return TileUse(
            tokens=tokens,
            learned=learned,
            passes=sum(m.reads.passes for m in self.matrices) + round(self._given * self._encoder.passes),
            serial_passes=serial * tokens,
            digital_macs=max(0, counts.macs - on_tiles - learning + round(self._given * self._encoder.digital_macs)),
            digital_learning_macs=learning,
            writes=writes,
            wear=wear,
        )

    def cost(self, tokens_per_day: float = 20_000.0) -> TileCost:
        """Simulated energy, latency and wear of what was done since the runtime was opened."""
        return price(self.use(), self.preset, tokens_per_day)

    def close(self) -> None:
        """Nothing is held that the garbage collector does not give back."""


def _row_bytes(record: Any) -> int:
    return int(record.cols) if record.weight_bits == 8 else -(-int(record.cols) // 2)


def _weights(data: npt.NDArray[np.uint8], record: Any) -> npt.NDArray[np.int64]:
    """The integers (rows, cols) of a matrix of an image."""
    rows, cols, at, size = int(record.rows), int(record.cols), int(record.weights_offset), _row_bytes(record)
    raw = data[at : at + rows * size].reshape(rows, size)
    if record.weight_bits == 8:
        return raw.view(np.int8).astype(np.int64)
    both = np.stack([raw & 15, raw >> 4], -1).reshape(rows, 2 * size)[:, :cols].astype(np.int64)
    return np.where(both < 8, both, both - 16)
