"""A tokenizer is learnt from a corpus once: `cache/tokenizers/<key>/` holds it for later runs.

The key is the fingerprint of the texts and the options that decide what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.errors import UserError
from textvae.runs.cache import cache_folder
from textvae.text.data.corpus import texts
from textvae.text.tokenizers import Tokenizer, load_tokenizer
from textvae.text.tokenizers.vocabulary import fingerprint_of

if TYPE_CHECKING:
    from datasets import Dataset

_VERSION = 1  # of what is learnt from the same texts and options


def learnt_tokenizer(
    dataset: Dataset,
    learn: Callable[[Iterable[str]], Tokenizer],
    options: dict[str, Any],
    cache_dir: str | Path | None = None,
) -> Tokenizer:
    """What ``learn`` makes of the texts of ``dataset``, or made of them before.

    Args:
        options: JSON-able; all that ``learn`` depends on beside the texts.
    """
    from filelock import FileLock

    key = fingerprint_of(_VERSION, dataset._fingerprint, options)
    folder = cache_folder(cache_dir) / "tokenizers" / key
    with FileLock(f"{folder}.lock"):  # of several processes one learns, the others wait for it
        try:
            return load_tokenizer(folder)
        except UserError:  # not there yet, or damaged
            tokenizer = learn(texts(dataset))
            folder.mkdir(exist_ok=True)
            tokenizer.save(folder)
            return tokenizer
