"""What a product costs on aarch64, in instructions, against limits: the 512 x 128 product, rounding included."""

import pytest

from bench.count_products import MACHINES, count, missing

LIMITS = {  # per multiplication; m: 64 vectors at once, of 16 bits
    "neon": {"8": 0.36, "16": 0.57, "m": 0.34},
    "dot": {"8": 0.15, "16": 0.28, "m": 0.2},
    "mmla": {"8": 0.15, "16": 0.28, "m": 0.14},
}


@pytest.mark.parametrize("table", LIMITS)
def test_a_product_stays_within_its_instructions(table: str) -> None:
    assert table in MACHINES
    if absent := missing(table):
        pytest.skip(f"not counted here: {', '.join(absent)} missing")
    worse = {k: v for k, v in count(table).items() if v > LIMITS[table][k]}
    assert not worse
