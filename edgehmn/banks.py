"""A model with one delta, a bank, for each topic, and the one file that keeps them all. SPEC.md, "Banks"."""

from collections.abc import Sequence

from edgehmn.core import CoreModel, Image, lib
from edgehmn.errors import InvalidFileError
from edgehmn.sealed import is_sealed, seal, unseal

MAGIC = b"EHMB"
VERSION = 1
COUNT_BYTES = 4  # the body begins with the number of banks
MAX_BANKS = int(lib.EHMN_MAX_BANKS)


def is_joined(state: bytes) -> bool:
    """Whether a state is of several banks, by its magic."""
    return is_sealed(MAGIC, state)


def join(deltas: Sequence[bytes]) -> bytes:
    """One state of several deltas of the same size; of one delta, that delta."""
    if len(deltas) == 1:
        return deltas[0]
    return seal(MAGIC, VERSION, len(deltas).to_bytes(COUNT_BYTES, "little") + b"".join(deltas))


def split(state: bytes) -> list[bytes]:
    """The deltas of a state, unchecked: one that is not joined is its only delta. Raises InvalidFileError."""
    if not is_joined(state):
        return [state]
    body = unseal(MAGIC, VERSION, state, least=COUNT_BYTES)
    n, size = int.from_bytes(body[:COUNT_BYTES], "little"), len(body) - COUNT_BYTES
    if not 2 <= n <= MAX_BANKS or size == 0 or size % n:
        raise InvalidFileError(f"says that it has {n} banks, which its size or the limit of {MAX_BANKS} excludes")
    return [body[at : at + size // n] for at in range(COUNT_BYTES, len(body), size // n)]


class BankedModel(CoreModel):
    """A CoreModel with several banks whose state is that of all of them."""

    def __init__(self, image: Image, *, seed: int = 0, banks: int) -> None:
        """banks: 2..MAX_BANKS."""
        super().__init__(image, seed=seed, banks=banks)
        self.n_banks = banks

    def save(self) -> bytes:
        """The banks that hold anything, the present one first, the others in their order."""
        present = self.topic().bank
        numbers = [present, *(bank for bank in range(self.n_banks) if bank != present)]
        return join([delta for bank in numbers if (delta := self.save_bank(bank)) is not None])

    def load(self, delta: bytes) -> None:
        """Take over a state of at most `n_banks` banks, whose first becomes the present one. A refused state changes
        nothing. Raises InvalidFileError."""
        deltas = split(delta)
        if len(deltas) > self.n_banks:
            raise InvalidFileError(f"it has {len(deltas)} banks, more than the {self.n_banks} there are")
        probe = CoreModel(self.image)
        for one in deltas:
            probe.load(one)
        self.forget(0)
        for bank, one in enumerate(deltas):
            self.load_bank(bank, one)


def open_core(image: Image, seed: int, banks: int) -> CoreModel:
    """The model of this host with 1..MAX_BANKS banks and nothing learned."""
    return BankedModel(image, seed=seed, banks=banks) if banks > 1 else CoreModel(image, seed=seed)
