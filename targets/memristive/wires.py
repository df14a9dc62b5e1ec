"""Resistance of the wires of a crossbar. Inputs drive the left ends of the rows, columns end in a virtual ground at the
bottom; each piece of wire between two cells, and to the first and from the last, has one resistance.

The network is linear, so that any drop is another conductance matrix: currents = volts @ effective.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # of floats


def first_order(g: Array, wire_ohm: float) -> Array:
    """Effective conductances (rows, columns), uS, of cells g, uS: each cell less the drops that undisturbed currents
    make on its row and its column. Right to first order in wire_ohm times the sum of conductances."""
    ohm = wire_ohm * 1e-6  # times uS is a pure number
    beyond = np.cumsum(g[:, ::-1], axis=1)[:, ::-1]  # of the cells that a piece of row wire feeds
    row = np.cumsum(beyond, axis=1)
    # Column j, driven at row l only: the share lost at row i passes all pieces below both.
    n = len(g)
    above = np.cumsum(g, axis=0)  # sum of g[0..i]
    weighted = np.cumsum((g * np.arange(n, 0, -1)[:, None].astype(g.dtype))[::-1], axis=0)[::-1]
    pieces = np.arange(n, 0, -1)[:, None].astype(g.dtype)
    column = above * pieces + np.concatenate([weighted[1:], np.zeros_like(g[:1])])
    return np.asarray(g / (1 + ohm * (row + column)), g.dtype)


def exact(g: Array, wire_ohm: float) -> Array:
    """The same by solving the whole mesh, in float64: block elimination from the top row to the bottom. Takes about
    rows * columns^3 operations."""
    g = np.asarray(g, np.float64)
    if wire_ohm <= 0:
        return g
    rows, columns = g.shape
    wire = 1e6 / wire_ohm  # uS
    line = 2 * wire * np.eye(columns) - wire * (np.eye(columns, k=1) + np.eye(columns, k=-1))
    line[-1, -1] = wire  # nothing beyond the last cell of a row
    into = np.zeros((columns, rows))  # of the present row of columns, by each driven input
    shunt = np.zeros((columns, columns))  # what hangs above it
    for i in range(rows):
        cell = np.diag(g[i])
        row = np.linalg.solve(line + cell, np.column_stack([cell, wire * np.eye(columns)[:, 0]]))
        node = cell - cell @ row[:, :-1] + shunt
        into[:, i] += g[i] * row[:, -1]
        # To the next row, or to ground, through one piece of wire.
        through = np.linalg.solve(node + wire * np.eye(columns), np.column_stack([wire * np.eye(columns), into]))
        shunt = wire * np.eye(columns) - wire * through[:, :columns]
        into = wire * through[:, columns:]
    return np.asarray(into.T, np.float64)
