"""Matplotlib figures as SVG inside a page: its fonts and its light or dark colors, no reference.

Black, white, and the grays between them become mixtures of the page's text and background colors,
and other colors are lightened on a dark page, so that one figure fits both color schemes. Texts
stay texts, in the font of the page.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

STYLE: Any = {
    "axes.edgecolor": "0.45",
    "axes.labelcolor": "0.3",
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the layout is the same everywhere
    "font.size": 8.0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "textvae",  # the same figure gives the same file
    "xtick.color": "0.45",
    "xtick.labelcolor": "0.3",
    "xtick.labelsize": 7.5,
    "ytick.color": "0.45",
    "ytick.labelcolor": "0.3",
    "ytick.labelsize": 7.5,
}
DPI = 200  # of the parts of a figure that are pixels
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def inline(figure: Figure, name: str, label: str) -> Markup:
    """Return a figure as an ``svg`` element.

    Args:
        figure: Drawn with the settings in ``STYLE``.
        name: Starts the ids in the element, which must be unique on the page.
        label: What the figure shows, for screen readers.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that the font does not have
        figure.savefig(stream, format="svg", transparent=True, dpi=DPI, metadata=NO_METADATA)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<= style=")[^"]*', lambda match: _for_page(match[0]), text)
    text = re.sub(r'(?<= id=")|(?<=xlink:href="#)|(?<=url\(#)', f"{name}-", text)
    size = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg role="img" aria-label="{escape(label)}" {size[0] if size else ""}>'
    return Markup(head + text[text.index(">") + 1 :].replace("xlink:href", "href"))


def css(color: str) -> str:
    """Return a color of matplotlib for a style sheet; it follows the color scheme."""
    return _themed(matplotlib.colors.to_hex(color))


def _for_page(style: str) -> str:
    style = re.sub(r"font: ([\w ]*?)([\d.]+px) [^;]*", _font, style)
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: _themed(match[0]), style)


def _font(match: re.Match[str]) -> str:
    weight = "font-weight: bold; " if "700" in match[1] or "bold" in match[1] else ""
    return f"{weight}font-size: {match[2]}"


def _themed(color: str) -> str:
    if not color[1:3] == color[3:5] == color[5:7]:
        return f"color-mix(in srgb, {color} var(--vivid), white)"
    share = round(100 * (1 - int(color[1:3], 16) / 255))
    return f"color-mix(in srgb, var(--ink) {share}%, var(--paper))"
