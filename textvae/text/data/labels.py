"""Labels as files give them: one class has one name, and a missing label is None."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

MISSING = ("", "-1")  # unlabeled, as in many published data sets; so are null and NaN
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
