"""Sums of pairs of weights that a Cortex-M4 keeps where its arena has room: fewer instructions, the same results."""

from dataclasses import replace
from shutil import which

import numpy as np
import pytest

from edgehmn.core import CoreModel, Image
from edgehmn.device.firmware import TOOLS
from edgehmn.quantize import Precision
from edgehmn.runtime.device import DeviceRuntime
from tests.models import ALL_8_BITS, TINY, random_tokens, tiny_image

missing = [tool for tool in (*TOOLS, "qemu-system-arm") if which(tool) is None]
LARGER = replace(TINY, d_model=64, d_hidden=72, n_heads=2, n_kv_heads=1)


@pytest.mark.skipif(bool(missing), reason=f"not run here: {', '.join(missing)} missing")
@pytest.mark.parametrize("bits", [ALL_8_BITS, Precision()], ids=["8", "16"])
def test_room_in_the_arena_saves_instructions_and_changes_nothing(bits: Precision) -> None:
    image, ids = tiny_image(LARGER, bits=bits), random_tokens(40)
    host, cost = CoreModel(Image(image)), {}
    scores, learned = host.process(ids, learn=True), host.save()
    for board in ("mps2-an386", "netduinoplus2"):  # the second keeps what is left of its arena for the host
        runtime = DeviceRuntime.emulated(image, board)
        try:
            assert np.array_equal(runtime.process(ids, learn=True), scores)
            assert runtime.save() == learned
            cost[board] = runtime.counts().step_instructions or 0
        finally:
            runtime.close()
    assert 0 < cost["mps2-an386"] < 0.95 * cost["netduinoplus2"]
