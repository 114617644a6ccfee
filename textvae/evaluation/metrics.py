"""How numbers are shown."""

from __future__ import annotations


def decimals(value: float, digits: int = 2) -> str:
    """A number as it is shown: rounded, and never "-0.00"."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
