"""Keys and values that describe a model, each checked when it is asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from edgehmn.checkpoint.model import MLPS, NORMS, POSITIONS, WINDOWS, Config
from edgehmn.errors import InvalidFileError, UnsupportedError, UsageError
from edgehmn.files import read_text

T = TypeVar("T")
MAX_DIMENSION = 1 << 20  # no size in a configuration may exceed this: it bounds every product of two
MAX_LAYERS = 1 << 10  # bounds the list of tensors
MAX_CONTEXT = 512  # positions of a window unless more are asked for: the core keeps their keys and values in RAM
MIN_RESTART = 4  # positions: the start token, half a window, and the token that comes


@dataclass(frozen=True)
class Settings:
    """What a file says of its model. `where` stands in messages. A key that is null counts as missing."""

    where: str
    values: Mapping[str, Any]

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of a key, of this type (an int serves as a float).

        Raises InvalidFileError for another type, or if it is missing and there is no default.
        """
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise InvalidFileError(f"{self.where}: key '{key}' is missing")
            return default
        expected: tuple[type, ...] = (int, float) if kind is float else (kind,)
        if not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool):
            raise InvalidFileError(f"{self.where}: key '{key}' must be {kind.__name__}, not {str(value)[:80]!r}")
        try:
            number: Any = value
            return float(number) if kind is float else number  # type: ignore[return-value]
        except OverflowError:
            raise InvalidFileError(f"{self.where}: key '{key}' is too large") from None

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number in 1..MAX_DIMENSION."""
        value = self.get(key, int, default)
        if not 1 <= value <= MAX_DIMENSION:
            raise InvalidFileError(f"{self.where}: key '{key}' is {value}, outside 1..{MAX_DIMENSION}")
        return value

    def only(self, key: str, *known: Any) -> None:
        """Raises UnsupportedError unless the key is missing or has one of these values."""
        value = self.values.get(key)
        if value is not None and not any(value == k and isinstance(value, bool) == isinstance(k, bool) for k in known):
            allowed = " or ".join(repr(k) for k in known)
            raise UnsupportedError(f"{self.where}: {key} {str(value)[:80]!r} is not supported; only {allowed} is")

    def part(self, key: str) -> "Settings | None":
        """The object under a key, None if it is missing."""
        value = self.get(key, dict, {})
        return Settings(f"{self.where}: {key}", value) if value else None


def read_settings(path: Path) -> Settings:
    """The keys of a JSON file. Raises InvalidFileError for anything but one object without duplicate keys."""
    return Settings(str(path), parse_object(read_text(path), str(path)))


def parse_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object, in which no key stands twice. Raises InvalidFileError."""
    try:
        parsed = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as e:
        raise InvalidFileError(f"{where}: not valid JSON ({e})") from e
    if not isinstance(parsed, dict):
        raise InvalidFileError(f"{where}: must hold a JSON object")
    return parsed


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key '{twice[:80]}' stands twice")
    return found


def context(where: str, trained: int, asked: int | None) -> int:
    """Positions of the window: `asked` ones, else as many as the model was trained for, at most MAX_CONTEXT."""
    if asked is None:
        return min(trained, MAX_CONTEXT)
    if not MIN_RESTART <= asked <= trained:
        raise UsageError(f"{where}: a context of {asked} is outside {MIN_RESTART}..{trained}, what it was trained for")
    return asked


def checked(c: Config, where: str) -> Config:
    """The configuration, if a model can have it. Raises InvalidFileError, or UnsupportedError for unknown words."""
    for f in fields(Config):
        value = getattr(c, f.name)
        if f.type is int and f.name != "start_token" and not 1 <= value <= MAX_DIMENSION:
            raise InvalidFileError(f"{where}: key '{f.name}' is {value}, outside 1..{MAX_DIMENSION}")
    words = {"final_norm": NORMS, "norm": NORMS, "mlp": MLPS, "positions": POSITIONS, "window": WINDOWS}
    for key, known in words.items():
        if getattr(c, key) not in known:
            raise UnsupportedError(f"{where}: {key} {getattr(c, key)!r}; known are {' and '.join(map(repr, known))}")
    if c.n_layers > MAX_LAYERS:
        raise InvalidFileError(f"{where}: key 'n_layers' is {c.n_layers}, above {MAX_LAYERS}")
    if c.d_model % c.n_heads or c.d_head % 2:
        raise InvalidFileError(f"{where}: d_model {c.d_model} over n_heads {c.n_heads} is not an even head size")
    if c.n_heads % c.n_kv_heads:
        raise InvalidFileError(f"{where}: n_heads {c.n_heads} is no multiple of n_kv_heads {c.n_kv_heads}")
    if not (0 < c.norm_eps < 1 and 1 < c.rope_theta < 1e12):
        raise InvalidFileError(f"{where}: norm_eps {c.norm_eps} or rope_theta {c.rope_theta} is out of range")
    _check_positions(c, where)
    return c


def _check_positions(c: Config, where: str) -> None:
    """RoPE, the window, and the token that it begins with."""
    pairs = c.d_head // 2 if c.positions == "rope" else 0
    if c.rope_divisors and len(c.rope_divisors) != pairs:
        raise InvalidFileError(f"{where}: rope_divisors has {len(c.rope_divisors)} numbers, the model needs {pairs}")
    if not all(0 < v < float("inf") for v in c.rope_divisors):
        raise InvalidFileError(f"{where}: rope_divisors must be positive and finite")
    if not -1 <= c.start_token < c.vocab_size:
        raise InvalidFileError(f"{where}: start_token {c.start_token} is outside -1..{c.vocab_size - 1}")
    if c.window == "sliding" and (c.start_token >= 0 or c.positions != "rope"):
        raise InvalidFileError(f"{where}: a sliding window needs positions 'rope' and no start_token; use 'restart'")
    if c.window == "restart" and c.n_ctx < MIN_RESTART:
        raise InvalidFileError(f"{where}: n_ctx {c.n_ctx} is below {MIN_RESTART}, the least with window 'restart'")
