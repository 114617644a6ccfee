"""The page itself: templates, and how a text, a picture, and a color are written in HTML.

Everything is escaped, whatever a corpus or the name of a run contains. The page has no scripts, and
its content security policy forbids them and everything from elsewhere.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from textvae.evaluation.metrics.metric import decimals
from textvae.evaluation.report.svg import css

if TYPE_CHECKING:
    from jinja2 import Environment

    from textvae.evaluation.explanation.result import ExplainedText
    from textvae.vae.examples import Shown

DARKEST = 60  # percent of the color of a word that z predicts
LONG = 300  # characters of a text that are shown at once
_FOLDED = Markup(
    '<details class="long"><summary dir="auto">{} <span>{} more words</span></summary>'
    '<p dir="auto">{}</p></details>'
)
GLYPHS = dict(zip("osD^vPX*", "●■◆▲▼✚✖★", strict=True))  # of the markers of matplotlib


def render(values: Mapping[str, Any]) -> str:
    """Return the page with these values in the template."""
    return _environment().get_template("report.html").render(values)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("textvae.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": show, "prose": prose, "css": css, "minus": minus}
    environment.filters |= {"shaded": shaded}
    environment.globals["glyphs"] = GLYPHS
    return environment


def show(item: Shown, against: Shown | None = None) -> Markup:
    """Return an example as HTML.

    Args:
        item: A text, or a picture as a PNG file.
        against: A text to compare with: words that it does not have there are marked.
    """
    if isinstance(item, bytes):
        return Markup('<img alt="image" src="data:image/png;base64,{}">').format(
            b64encode(item).decode()
        )
    words = [_printable(word) for word in item.split()]
    if not words:
        return Markup('<p class="muted">(empty)</p>')
    pieces = [escape(word) for word in words]
    if isinstance(against, str):
        theirs = [_printable(word) for word in against.split()]
        for kind, _, _, start, end in SequenceMatcher(None, theirs, words, False).get_opcodes():
            if kind in ("replace", "insert"):
                pieces[start:end] = [Markup("<mark>{}</mark>").format(w) for w in words[start:end]]
    shown = _fitting(words)
    first, rest = (Markup(" ").join(part) for part in (pieces[:shown], pieces[shown:]))
    if not rest:
        return Markup('<p dir="auto">{}</p>').format(first)
    return _FOLDED.format(first, len(words) - shown, rest)


def shaded(text: ExplainedText) -> Markup:
    """Return the words of a text, the darker the more z gains; in another color if it loses."""
    figures = zip(text.spelling, text.words, text.cost, text.gain, strict=True)
    words = [
        Markup('{}<span title="cost {}, gain {}" style="background: {}">{}</span>').format(
            " " if spelled[:1] == " " else "",
            *(minus(decimals(float(nats), 1)) for nats in (cost, gain)),
            Markup(_shade(gain)),
            _printable(word),
        )
        for spelled, word, cost, gain in figures
    ]
    shown = _fitting(text.words)
    first, rest = (Markup("").join(part) for part in (words[:shown], words[shown:]))
    whole = Markup('<p dir="auto">{}</p>').format(first)
    folded = _FOLDED.format(first, len(words) - shown, rest) if rest else whole
    return Markup('<div class="shaded">{}</div>').format(folded)


def _shade(gain: float) -> str:
    color = "--accent" if gain > 0 else "--changed"
    return f"color-mix(in srgb, var({color}) {min(DARKEST, 12 * abs(gain)):.0f}%, transparent)"


def _fitting(words: list[str]) -> int:
    """Return how many words are shown at once; all, if only a few would be left."""
    length = 0
    for i, word in enumerate(words):
        length += len(word) + 1
        if length > LONG and len(words) - i > 10:
            return max(i, 1)
    return len(words)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def minus(number: str) -> str:
    """Return a number with minus signs in place of hyphens."""
    return number.replace("-", "\N{MINUS SIGN}")


def prose(text: str) -> Markup:
    """Return a sentence as HTML; ``code`` between backticks, and what is between double stars."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked))
