"""Memory plan of an image: the same figures as on the device, because the device's own code computes them."""

from typing import Any

from edgehmn.core import Image, arena_regions
from edgehmn.device.boards import find_board


def plan(image: Image, target: str | None = None) -> dict[str, Any]:
    """Sizes in bytes; `regions` are those of the learning arena and add up to it. `target`: a board, whose fit is told;
    DoesNotFitError if the image cannot run there."""
    return {
        "image_bytes": len(image.bytes),
        "arena_bytes": image.arena_bytes(plastic=True),
        "arena_static_bytes": image.arena_bytes(plastic=False),
        "delta_bytes": image.delta_bytes(),
        "regions": arena_regions(image),
        "targets": [find_board(target).fit(image)] if target is not None else [],
    }
