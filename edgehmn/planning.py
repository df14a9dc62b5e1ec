"""Memory plan of an image: the same figures as on the device, because the device's own code computes them."""

from typing import Any

from edgehmn.core import Image, arena_regions
from edgehmn.device.boards import find_board
from edgehmn.device.endurance import YEARS, write_budget


def plan(image: Image, target: str | None = None, years: float = YEARS) -> dict[str, Any]:
    """Sizes in bytes; `regions` are those of the learning arena and add up to it. `target`: a board, whose fit is told,
    and how often it can store what it learned if its flash is to last so many years; DoesNotFitError if the image
    cannot run there."""
    targets = []
    if target is not None:
        board = find_board(target)
        budget = write_budget(board, image, years)
        targets = [board.fit(image) | {"write_budget": None if budget is None else budget.as_dict()}]
    return {
        "image_bytes": len(image.bytes),
        "arena_bytes": image.arena_bytes(plastic=True),
        "arena_static_bytes": image.arena_bytes(plastic=False),
        "delta_bytes": image.delta_bytes(),
        "regions": arena_regions(image),
        "targets": targets,
    }
