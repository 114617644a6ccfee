"""Checks of the arguments of functions and modules, which Python users call without a config."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from textvae.config.types import LARGEST_INT
from textvae.errors import OptionError, did_you_mean


def check_integers(least: int, most: int = LARGEST_INT, **values: Any) -> None:
    """Check integers, given by name.

    Args:
        least: The smallest value.
        most: The largest one.
        values: The arguments; NumPy's integers are valid.

    Raises:
        UserError: One is not an integer, or out of range.
    """
    for name, value in values.items():
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        limits = f"at least {least}"
        if most < LARGEST_INT or (is_integer and value > most):
            limits += f" and at most {most}"
        if not is_integer:
            raise OptionError(f"must be an integer, {limits}", **{name: value})
        if not least <= value <= most:
            raise OptionError(f"must be {limits}", **{name: value})


def check_numbers(**values: Any) -> None:
    """Check finite numbers, given by name.

    Raises:
        UserError: One is not a number, or infinite.
    """
    for name, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value)):
            raise OptionError("must be a finite number", **{name: value})


def check_shares(**values: Any) -> None:
    """Check rates of dropout, given by name.

    Raises:
        UserError: One is not in [0, 1).
    """
    check_numbers(**values)
    for name, value in values.items():
        if not 0 <= value < 1:
            raise OptionError("must be at least 0 and below 1", **{name: value})


def check_choice(choices: Sequence[str], **values: Any) -> None:
    """Check values that have to be one of several, given by name.

    Raises:
        UserError: One is none of them.
    """
    for name, value in values.items():
        if value not in choices:
            comma = "," if len(choices) > 2 else ""
            known = f"{', '.join(choices[:-1])}{comma} or {choices[-1]}"
            near = did_you_mean(str(value), choices)
            raise OptionError(f"choose {known}{near}", **{name: value})
