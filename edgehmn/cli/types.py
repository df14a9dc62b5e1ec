"""Types of arguments, which refuse what click's own let through."""

import math
from typing import Any

import click


class Number(click.FloatRange):
    """A number in a range, in which infinity and what is no number are not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
