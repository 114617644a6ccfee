"""The types of options and their ranges, which the command line shows and every reader checks.

To a type checker they are plain numbers; at run time, ``get_type_hints`` returns the restricted
types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union, get_args, get_origin

from jsonargparse import typing as restricted

from textvae.errors import UserError, did_you_mean

LARGEST_SEED = 2**63 - 1  # the largest seed of a torch generator
LARGEST_INT = 2**31 - 1  # of all other integers, so that products of two still fit in 64 bits
_RANGES: dict[Any, tuple[type, list[tuple[str, float]]]] = {}
LIMITS = {">": "above", ">=": "at least", "<": "below", "<=": "at most"}
_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


def _number(name: str, base: type, *limits: tuple[str, float]) -> Any:
    kind = getattr(restricted, name, None)  # jsonargparse has the usual ones
    if kind is None:
        kind = restricted.restricted_number_type(name, base, list(limits))
    _RANGES[kind] = (base, list(limits))
    return kind


if TYPE_CHECKING:
    PositiveInt: TypeAlias = int
    NonNegativeInt: TypeAlias = int
    Count: TypeAlias = int
    DecoderLayers: TypeAlias = int
    EncoderLayers: TypeAlias = int
    TwoOrMore: TypeAlias = int
    ThreeOrMore: TypeAlias = int
    VocabSize: TypeAlias = int
    Seed: TypeAlias = int
    Steps: TypeAlias = int
    Threads: TypeAlias = int
    Concentration: TypeAlias = float
    Deviations: TypeAlias = float
    PositiveFloat: TypeAlias = float
    NonNegativeFloat: TypeAlias = float
    PositiveShare: TypeAlias = float
    ClosedUnitInterval: TypeAlias = float
    DropoutRate: TypeAlias = float
else:
    PositiveInt = _number("PositiveInteger", int, (">", 0), ("<=", LARGEST_INT))
    NonNegativeInt = _number("NonNegativeInteger", int, (">=", 0), ("<=", LARGEST_INT))
    Count = _number("Count", int, (">", 0), ("<=", 10**12))
    DecoderLayers = _number("DecoderLayers", int, (">", 0), ("<=", 1000))
    EncoderLayers = _number("EncoderLayers", int, (">=", 0), ("<=", 1000))
    # Both ends of a path; a token and the end of the sentence.
    TwoOrMore = _number("TwoOrMore", int, (">=", 2), ("<=", LARGEST_INT))
    # Both ends of a path, and what is between them.
    ThreeOrMore = _number("ThreeOrMore", int, (">=", 3), ("<=", LARGEST_INT))
    # The four special tokens and one more.
    VocabSize = _number("VocabSize", int, (">=", 5), ("<=", LARGEST_INT))
    Steps = _number("Steps", int, (">=", 0), ("<=", 10_000))  # of gradient descent per example
    Seed = _number("Seed", int, (">=", 0), ("<=", LARGEST_SEED))
    Threads = _number("Threads", int, (">", 0), ("<=", 1024))
    # Of a von Mises-Fisher distribution; above, fp32 no longer resolves its log density.
    Concentration = _number("Concentration", float, (">", 0), ("<=", 10_000))
    Deviations = _number("Deviations", float, (">", 0), ("<=", 1_000_000))  # of the prior
    PositiveFloat = _number("PositiveFloat", float, (">", 0))
    NonNegativeFloat = _number("NonNegativeFloat", float, (">=", 0))
    PositiveShare = _number("PositiveShare", float, (">", 0), ("<=", 1))
    ClosedUnitInterval = _number("ClosedUnitInterval", float, (">=", 0), ("<=", 1))
    DropoutRate = _number("DropoutRate", float, (">=", 0), ("<", 1))

# Values that release 0.1.0 spelled differently in its files.
_FORMER_VALUES = {
    "inference.method": {"amortised": "amortized", "semi_amortised": "semi_amortized"}
}


def current_value(option: str, value: Any) -> Any:
    """Return the value of an option in a file as it is spelled now."""
    former = _FORMER_VALUES.get(option, {})
    return former.get(value, value) if isinstance(value, str) else value


def check_values(kinds: Mapping[str, Any], values: Mapping[str, Any], prefix: str = "") -> None:
    """Check the values in a config, in a model's arguments, or in a JSON file against their types.

    Args:
        kinds: The types by name, as returned by ``get_type_hints``.
        values: Values by name, for some or all of these names.
        prefix: Put before a name in messages, such as ``--optim.``.

    Raises:
        UserError: A value has the wrong type or is out of range.
    """
    for name, value in values.items():
        if wrong := mistake(kinds[name], value):
            shown = "null" if value is None else " ".join(str(value).split())
            raise UserError(f"{prefix}{name} {shown:.200}: {wrong}")


def mistake(kind: Any, value: Any) -> str | None:
    """Return what is wrong with a value of this type; None if it is valid."""
    if value is None and type(None) in _members(kind):
        return None
    kind = _members(kind)[0]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        near = did_you_mean(str(value), choices)
        return None if value in choices else f"choose one of {', '.join(choices)}{near}"
    base, limits = _RANGES.get(kind, (kind, []))
    if not _is_a(base, value):
        looks_right = base in (int, float) and not isinstance(value, int | float | None)
        kind_of = f", not {type(value).__name__}" if looks_right and _is_numeric(value) else ""
        return f"must be {_KINDS[base]}{kind_of}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    if not all(_holds(value, sign, limit) for sign, limit in limits):
        return f"must be {limits_of(limits, value)}"
    return None


def _is_numeric(value: Any) -> bool:
    """Whether a value reads like a number: a string with one, or a scalar of NumPy."""
    with suppress(TypeError, ValueError):
        return bool(math.isfinite(float(value)))
    return False


def limits_of(limits: Sequence[tuple[str, float]], value: float) -> str:
    """Return a range in words, such as "above 0 and at most 1".

    Args:
        limits: Pairs of a sign and a number.
        value: The value outside this range: a very large limit is only named if it exceeds that.
    """
    return " and ".join(
        f"{LIMITS[sign]} {limit}"
        for sign, limit in limits
        if limit < LARGEST_INT or value > LARGEST_INT
    )


def numbers(kind: Any) -> str:
    """Return which numbers an option takes, such as "integer > 0".

    Args:
        kind: The type of the option.

    Returns:
        The description; empty if the option is not a number.
    """
    kind = _members(kind)[0]
    base, limits = _RANGES.get(kind, (kind, []))
    if base not in (int, float):
        return ""
    shown = " and ".join(f"{sign} {limit}" for sign, limit in limits if limit < LARGEST_INT)
    return f"{'integer' if base is int else 'number'} {shown}".strip()


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the parts of an option's type, which is one type, or one type and None."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


LARGEST_EXACT = 2**53  # floats up to this are exact integers


def plain(value: Any) -> Any:
    """Return the value as a plain int or float if the parser made it a restricted one."""
    base, _ = _RANGES.get(type(value), (None, []))
    return value if base is None else base(value)


def as_word(value: Any) -> str:
    """Return a value as it is written on the command line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if value.is_integer() and abs(value) < LARGEST_EXACT:
            return str(int(value))
    return str(value)


def _is_a(base: type, value: Any) -> bool:
    if isinstance(value, bool):
        return base is bool
    return isinstance(value, (int, float) if base is float else base)


def _holds(value: Any, sign: str, limit: float) -> bool:
    if sign in (">", ">="):
        return value > limit or (sign == ">=" and value == limit)
    return value < limit or (sign == "<=" and value == limit)
