"""Target profiles: what is known of a board, with units in the keys and a source in every table.

A profile is a TOML file. It is read strictly: an unknown key, a missing one, a table without a source, or a value that
cannot be, is an InvalidFileError that names file and key.
"""

import dataclasses
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from edgehmn.errors import DependencyError, InvalidFileError, UsageError, no_such

if sys.version_info >= (3, 11):
    import tomllib
else:
    try:
        import tomli as tomllib
    except ImportError:
        tomllib = None

PROFILES = Path(__file__).resolve().parent / "profiles"
KINDS = ("microcontroller", "single-board computer", "gpu", "host", "emulated")
LEVELS = ("tcm", "sram", "l2", "l3", "dram", "flash", "xip", "psram", "card")  # roughly from fast to slow
MAX_PROFILE_BYTES = 1 << 16
LISTED = "'edgehmn targets' lists them, and FILE.toml is a profile of your own"


def _limits(low: float, high: float) -> Any:
    return field(metadata={"limits": (low, high)})


@dataclass(frozen=True)
class Core:
    """name: as in the fitted file, where it is one of those. max_macs_per_cycle: int8, by the instruction set."""

    name: str
    count: int = _limits(1, 256)
    clock_hz: int = _limits(10**6, 10**10)
    max_macs_per_cycle: float = _limits(0.01, 10**6)
    source: str = ""


@dataclass(frozen=True)
class OwnCore:
    """How edgehmn's own core runs there. instructions: an entry of counts.json. interval_factor: what the cycles may be
    too few or too many by, with 90 %."""

    instructions: str
    cycles_per_instruction: float = _limits(0.05, 50)
    interval_factor: float = _limits(1, 20)
    source: str = ""


@dataclass(frozen=True)
class Network:
    """Cycles per multiply-accumulate of a runtime for networks, on cores that are not in the fitted file."""

    runtime: str
    cycles_per_mac_fc: float = _limits(1e-4, 1000)
    cycles_per_mac_conv: float = _limits(1e-4, 1000)
    cycles_per_mac_pointwise: float = _limits(1e-4, 1000)
    cycles_per_mac_depthwise: float = _limits(1e-4, 1000)
    cycles_per_operator: float = _limits(0, 10**8)
    interval_factor: float = _limits(1, 20)
    source: str = ""


@dataclass(frozen=True)
class Memory:
    """A level of memory, with what reads reach there from one core. holds_weights: whether a model's weights may lie
    in it for good; caches hold them only while they fit. peak_bandwidth_bytes_per_s: of the bus, by the data sheet."""

    level: str
    bytes: int = _limits(256, 2**42)
    bandwidth_bytes_per_s: float = _limits(1000, 10**13)
    holds_weights: bool = False
    holds_arena: bool = False
    peak_bandwidth_bytes_per_s: float | None = field(default=None, metadata={"limits": (1000, 10**13)})
    source: str = ""


@dataclass(frozen=True)
class Power:
    """Of the board where `of` says so. sleep_w: kept on, doing nothing, as low as it goes; idle_w: awake; active_w: one
    core computing."""

    of: str
    sleep_w: float = _limits(0, 1000)
    idle_w: float = _limits(0, 1000)
    active_w: float = _limits(1e-7, 1000)
    interval_factor: float = _limits(1, 10)
    source: str = ""


@dataclass(frozen=True)
class Measured:
    """What `profile --anchor` measured on this very board, of our own core: per multiply-accumulate, output of a
    matrix, multiply-accumulate and score of attention, token; per byte of weights, of models of more than beyond_bytes,
    for each level of memory behind the nearest; of learning, per multiply-accumulate, synapse written and token."""

    date: str
    seconds_per_mac: float = _limits(0, 1)
    seconds_per_row: float = _limits(0, 1)
    seconds_per_attention_mac: float = _limits(0, 1)
    seconds_per_score: float = _limits(0, 1)
    seconds_per_token: float = _limits(0, 100)
    beyond_bytes: tuple[int, ...] = _limits(0, 2**42)
    seconds_per_byte: tuple[float, ...] = _limits(0, 1)
    seconds_per_plastic_mac: float = _limits(0, 1)
    seconds_per_write: float = _limits(0, 1)
    seconds_per_learned_token: float = _limits(0, 100)
    interval_factor: float = _limits(1, 20)
    source: str = ""


@dataclass(frozen=True)
class Target:
    """A board. measured_as: its names in the published measurements."""

    name: str
    title: str
    kind: str
    core: Core
    own_core: OwnCore
    memory: tuple[Memory, ...]
    power: Power
    measured_as: tuple[str, ...] = ()
    network: Network | None = None
    measured: Measured | None = None
    path: Path = Path()

    def memory_for(self, what: str) -> tuple[Memory, ...]:
        """Levels that may hold "weights" or an "arena"."""
        return tuple(m for m in self.memory if getattr(m, f"holds_{what}"))

    @property
    def known_from(self) -> str:
        if self.measured is not None:
            return "measured on this board"
        if self.measured_as:
            return "published measurements of this board"
        return "published measurements of its core" if self.network is None else "data sheets and related boards"


def target_names() -> list[str]:
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def load_target(name: str, others: Iterable[str] = ()) -> Target:
    """A target by its name, or a TOML file by its path. others: names beside those of targets that the caller knows.
    Raises UsageError if there is none, InvalidFileError."""
    path = Path(name)
    if path.suffix != ".toml":
        path = PROFILES / f"{name}.toml"
        if name not in target_names():
            raise no_such("target", name, [*target_names(), *others], LISTED)
    elif not path.is_file():
        raise UsageError(f"{path}: no such profile")
    return read_target(path)


def read_target(path: Path, *, but_measured: bool = False) -> Target:
    """Raises InvalidFileError, naming file and key. but_measured: leave out what anchoring measured and replaces."""
    if tomllib is None:
        raise DependencyError("tomli is missing, which reads the profiles of targets: pip install tomli")
    try:
        data = path.read_bytes()
        if len(data) > MAX_PROFILE_BYTES:
            raise InvalidFileError(f"{path}: larger than {MAX_PROFILE_BYTES} bytes; it is no profile of a target")
        values = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidFileError(f"{path}: not TOML ({e})") from e
    except OSError as e:
        raise InvalidFileError(f"{path}: cannot be read ({e.strerror})") from e
    if "path" in values:
        raise InvalidFileError(f"{path}: unknown key 'path'")
    if but_measured:
        values.pop("measured", None)
    target: Target = _table(Target, values | {"path": path}, path, "")
    _check(target, path)
    return target


def _check(target: Target, path: Path) -> None:
    def require(ok: bool, key: str, what: str) -> None:
        if not ok:
            raise InvalidFileError(f"{path}: {key}: {what}")

    require(target.name == path.stem, "name", f"is '{target.name}', but the file is called {path.name}")
    require(target.kind in KINDS, "kind", f"'{target.kind:.40}' is none of {', '.join(KINDS)}")
    for m in target.memory:
        require(m.level in LEVELS, "memory.level", f"'{m.level:.40}' is none of {', '.join(LEVELS)}")
    for what in ("weights", "arena"):
        require(bool(target.memory_for(what)), "memory", f"no level has holds_{what} = true")
    if levels := target.measured:
        rising = all(list(v) == sorted(set(v)) for v in (levels.beyond_bytes, levels.seconds_per_byte))
        same = len(levels.beyond_bytes) == len(levels.seconds_per_byte)
        require(rising and same, "measured", "beyond_bytes and seconds_per_byte must rise, and be as many")
    p = target.power
    require(p.sleep_w <= p.idle_w <= p.active_w, "power", "sleep_w, idle_w and active_w must not fall in this order")


def _table(cls: type[Any], values: Any, path: Path, prefix: str) -> Any:
    """An instance of a dataclass from a TOML table."""
    if not isinstance(values, dict):
        raise InvalidFileError(f"{path}: {prefix.rstrip('.')}: must be a table")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    types = get_type_hints(cls)
    for key in values:
        if key not in fields:
            near = [name for name in fields if name.startswith(key)]
            hint = f"; units belong into the key: {near[0]}" if near else ""
            if cls is Measured:
                hint = "; another version anchored it: edgehmn profile FILE --anchor does so again"
            raise InvalidFileError(f"{path}: unknown key '{prefix}{key:.60}'{hint}")
    out = {}
    for name, f in fields.items():
        key = prefix + name
        optional = f.default is not dataclasses.MISSING and name not in ("source", "holds_weights", "holds_arena")
        if name not in values:
            if optional or name.startswith("holds_"):
                continue
            raise InvalidFileError(f"{path}: '{key}' is missing")
        out[name] = _value(types[name], values[name], path, key, f.metadata.get("limits"))
    return cls(**out)


def _value(kind: Any, value: Any, path: Path, key: str, limits: tuple[float, float] | None) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise InvalidFileError(f"{path}: {key}: must be a list")
        return tuple(_value(get_args(kind)[0], v, path, key, limits) for v in value)
    options = [k for k in get_args(kind) if k is not type(None)]
    kind = options[0] if options else kind
    if dataclasses.is_dataclass(kind):
        return _table(kind, value, path, f"{key}.")  # type: ignore[arg-type]
    if kind is Path:
        return value
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise InvalidFileError(f"{path}: {key}: must be a {kind.__name__}, not {value!r:.40}")
    if limits is not None and not limits[0] <= value <= limits[1]:
        raise InvalidFileError(f"{path}: {key}: {value} cannot be; it must lie in {limits[0]:g}..{limits[1]:g}")
    if isinstance(value, str) and not value.strip():
        raise InvalidFileError(f"{path}: {key}: is empty")
    return kind(value)
