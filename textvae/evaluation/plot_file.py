"""A plot in a file of its own."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from textvae.errors import UserError
from textvae.runs.files import check_writable, replace_file

FORMATS = (".svg", ".png", ".pdf")
# Okabe and Ito: safe for color blindness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def check_plot_file(path: Path | str) -> None:
    """Check that a plot can be written to a file, and that its name says how.

    Raises:
        UserError: It has another extension, or it cannot be written.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise UserError(f"{str(path)!r}: plots are written as {', '.join(FORMATS)}")
    check_writable(Path(path))


def save_plot(figure: Figure, path: Path | str) -> None:
    """Write a plot, atomically.

    Args:
        figure: The plot.
        path: The file: .svg, .png or .pdf.

    Raises:
        UserError: The file cannot be written.
    """
    check_plot_file(path)
    kind = Path(path).suffix[1:].lower()

    def write(temporary: Path) -> None:
        figure.savefig(temporary, dpi=150, format=kind, bbox_inches="tight")

    with warnings.catch_warnings():  # of letters that the font does not have
        warnings.simplefilter("ignore", UserWarning)
        replace_file(Path(path), write)
