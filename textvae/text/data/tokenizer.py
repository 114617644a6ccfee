"""The tokenizer of a corpus: learned from it once, or taken over from a trained run."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.errors import UserError, quantity
from textvae.runs.cache import cache_folder, cache_lock, mark_used, unwritable
from textvae.runs.model_folder import TOKENIZER_PATTERNS, fetch
from textvae.runs.slow_steps import SlowStep, counted
from textvae.text.data.corpus import texts
from textvae.text.data.encoded import EncodedSplit
from textvae.text.tokenizers import Tokenizer, load_tokenizer
from textvae.text.tokenizers.vocabulary import TOKENIZER_FILE, UNK, fingerprint_of

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

LEARNING_VERSION = 1  # changes if the same texts and options give a different tokenizer
MANY_UNKNOWN = 0.01  # of the tokens
LOOKED_AT = 1000  # texts that are looked at for signs of a mistake
MANY_ATTACHED = 0.2  # of the texts: they are raw
MANY_MISSPELLED = 0.01  # of the texts
_ATTACHED = re.compile(r"[^\W\d_]{2,}(?:[,?!;](?=\s|$)|\.$)")  # punctuation that ends a word


def taken_tokenizer(path: str, kind: str, tokenized: bool) -> Tokenizer:
    """Return a tokenizer that a new run takes over.

    Args:
        path: A trained run, a folder with a tokenizer, or a model on the Hub.
        kind: The kind that it must have; ``auto`` for any.
        tokenized: Whether words are already separated by spaces.

    Raises:
        UserError: There is no tokenizer at the path, or it does not fit the options.
    """
    named = Path(path)
    if named.name == TOKENIZER_FILE:
        found = load_tokenizer(named.parent)
    else:
        found = load_tokenizer(fetch(path, allow_patterns=TOKENIZER_PATTERNS))
    if kind not in ("auto", found.option):
        raise UserError(
            f"the tokenizer of {path}: its kind is {found.option}, not {kind}: set "
            "--tokenizer.kind auto"
        )
    made_for = getattr(found, "tokenized", tokenized)
    if made_for != tokenized:
        raise UserError(
            f"the tokenizer of {path}: it was made for --data.tokenized "
            f"{str(made_for).lower()}: set that, or use another tokenizer"
        )
    logger.info("the tokenizer of %s is used, with %s", path, quantity(len(found), "token"))
    return found


def warn_of_unknown(split: EncodedSplit, path: str) -> None:
    """Say how many tokens are ``<unk>`` if a tokenizer was taken over and these are not few."""
    share = split.unknown_share()
    if share > MANY_UNKNOWN:
        logger.warning(
            "the tokenizer of %s: %.1f%% of the tokens of the training split are <unk>: "
            "perplexities are too low to compare with those of other tokenizers",
            *(path, 100 * share),
        )


def warn_of_spelling(tokenizer: Tokenizer, dataset: Dataset, path: str) -> None:
    """Warn if a tokenizer that was taken over does not spell texts as they were written.

    Case, accents, and spaces may differ, and texts with unknown tokens do not count.
    """
    read = [(text, tokenizer.encode(text)) for text in dataset[:LOOKED_AT]["text"]]
    spelled = [(text, tokenizer.decode(ids)) for text, ids in read if UNK not in ids]
    wrong = [pair for pair in spelled if len({*map(_plain, pair)}) > 1]
    if len(wrong) > MANY_MISSPELLED * len(spelled):
        logger.warning(
            "the tokenizer of %s changes %.0f%% of the texts, such as %r to %r: it has no decoder, "
            "or no token for some characters, which metrics per word or byte still count",
            *(path, 100 * len(wrong) / len(spelled), *wrong[0]),
        )


def _plain(text: str) -> str:
    """Return a text without case, accents, and spaces."""
    characters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in characters if not c.isspace() and unicodedata.category(c) != "Mn")


def warn_of_raw_text(dataset: Dataset) -> None:
    """Warn if texts that are to be split at spaces only look as if nobody had tokenized them."""
    texts = dataset[:LOOKED_AT]["text"]
    found = [match[0] for text in texts if (match := _ATTACHED.search(text))]
    if len(found) > MANY_ATTACHED * len(texts):
        logger.warning(
            "--data.tokenized true splits at spaces only, and the texts look raw: %r is one word "
            "in them; set --data.tokenized false",
            found[0],
        )


def learned_tokenizer(
    dataset: Dataset,
    learn: Callable[[Iterable[str]], Tokenizer],
    options: dict[str, Any],
    cache_dir: str | Path | None = None,
) -> Tokenizer:
    """Learn a tokenizer, or load it from the cache if it was learned before.

    Args:
        dataset: A split with the column ``text``.
        learn: Trains a tokenizer on texts.
        options: Everything else that the result depends on; must be serializable as JSON.
        cache_dir: ``$TEXTVAE_CACHE`` or ``~/.cache/textvae`` by default.

    Returns:
        The tokenizer.
    """
    key = fingerprint_of(LEARNING_VERSION, dataset._fingerprint, options)
    folder = cache_folder(cache_dir) / "tokenizers" / key
    mark_used(folder)
    with suppress(UserError):  # not there yet, or damaged
        return load_tokenizer(folder)
    with cache_lock(folder):  # one of several processes learns, the others wait
        with suppress(UserError):
            return load_tokenizer(folder)
        logger.info("learning a tokenizer from %s", quantity(len(dataset), "document"))
        step = SlowStep(logger, "tokenizer: %d of %d documents read")
        tokenizer = learn(counted(texts(dataset), step, len(dataset)))
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        tokenizer.save(folder)
        return tokenizer
