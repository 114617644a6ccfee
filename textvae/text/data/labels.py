"""Labels as files give them: one class has one name, and a missing label is None.

A label can also be a number that is measured, such as a rating or a weight: -1 is then a number.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

# Unlabeled: -1 as in many published datasets, and what programs write into text for null and NaN.
MISSING = ("", "-1", "null", "NULL", "NaN", "nan", "<NA>", "N/A", "n/a")
NO_NUMBER = frozenset(MISSING) - {"-1"}
_WHOLE = re.compile(r"([+-]?\d+)\.0+")  # how spreadsheets and pandas write integers


def label_of(value: Any) -> str | None:
    """Return the name of a class, or None for a missing label.

    ``1``, ``1.0`` and ``"1"`` are the same class.

    Args:
        value: A value of a label column.

    Raises:
        ValueError: It is not a single string or number; the message is its type.
    """
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    if not isinstance(value, str | int | float | Decimal):
        raise ValueError(type(value).__name__)
    name = str(value).strip()
    if whole := _WHOLE.fullmatch(name):
        name = whole[1]
    return None if name in MISSING else name


def number_of(value: Any) -> str | None:
    """Return a number as a string that ``float`` reads back exactly, or None if it is missing.

    Args:
        value: A value of a column of numbers.

    Raises:
        ValueError: It is not a finite number; the message is what it is.
    """
    if value is None or (isinstance(value, str) and value.strip() in NO_NUMBER):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(repr(value)) from None
    except OverflowError:
        raise ValueError("an integer that is too large") from None
    if math.isnan(number) and not isinstance(value, str):
        return None
    if not math.isfinite(number):
        raise ValueError(repr(value))
    return repr(number).removesuffix(".0")
