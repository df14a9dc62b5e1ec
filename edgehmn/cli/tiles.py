"""Options of simulated memristive tiles, wherever --runtime tile is taken."""

import functools
from collections.abc import Callable
from typing import Any

import click

from edgehmn.cli.types import Number
from edgehmn.errors import UsageError

# Checked against targets.memristive by a test: it is not loaded to print help.
MAPPINGS = ("all", "encoder", "adapters")
WRITES = ("pulse", "noise", "threshold", "accumulate", "verify")
MAX_CELL_BITS = 7


def tile_options(learns: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives a command the options, and its function `tiles`: a TileSetup, or None if none was given.
    learns: whether the command does; else what lies on a tile is the frozen part, and nothing is written."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(
            *args: Any, cell_bits: int | None, mapping: str | None = None, writes: str | None = None,
            write_threshold: float | None = None, **options: Any,
        ) -> Any:  # fmt: skip
            return function(*args, tiles=_setup(mapping, cell_bits, writes, write_threshold), **options)

        options = [
            click.option(
                "--cell-bits", type=click.IntRange(0, MAX_CELL_BITS),
                help="Of a tile: bits of a weight in one cell, 0 is analog; default its own.",
            ),
        ]  # fmt: skip
        if learns:
            options += [
                click.option("--mapping", type=click.Choice(MAPPINGS), help="Of a tile: what lies on it; default all."),
                click.option(
                    "--writes", type=click.Choice(WRITES),
                    help="Of a tile: pulse, pulses for each step, drawn; noise, the device rounds; threshold, large "
                    "steps only; accumulate, then pulses; verify (default), accumulate, then write-verify.",
                ),
                click.option(
                    "--write-threshold", type=Number(1, 127), help="Steps that threshold to verify wait for."
                ),
            ]  # fmt: skip
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _setup(mapping: str | None, cell_bits: int | None, writes: str | None, threshold: float | None) -> Any:
    if mapping is None and cell_bits is None and writes is None and threshold is None:
        return None
    if mapping == "encoder" and (writes is not None or threshold is not None):
        raise UsageError("--writes and --write-threshold are about adapters, which --mapping encoder leaves digital")
    from edgehmn.targets.memristive.mapping import TileSetup

    return TileSetup(mapping or "all", cell_bits, writes or "verify", threshold)
