"""Results that look the same in a notebook and when they are printed."""

from __future__ import annotations

from typing import Any


class Printed:
    """A result that a notebook shows as ``print`` does, instead of its representation."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))
