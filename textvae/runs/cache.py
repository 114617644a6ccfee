"""The cache folder, shared by all runs of a user."""

from __future__ import annotations

import os
from pathlib import Path

from textvae.errors import UserError
from textvae.runs.files import expanded


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Find the cache folder, and create it if necessary.

    Args:
        cache_dir: The folder; by default ``$TEXTVAE_CACHE``, or else ``~/.cache/textvae``.

    Returns:
        The folder.

    Raises:
        UserError: If it cannot be created.
    """
    chosen = cache_dir or os.environ.get("TEXTVAE_CACHE") or "~/.cache/textvae"
    folder = expanded(chosen)
    if folder.parts[0] == "~":
        raise UserError(
            "there is no home folder for the cache: set --data.cache_dir or TEXTVAE_CACHE"
        )
    try:
        for part in ("sources", "texts", "tokenizers", "encoded"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache folder {folder}: {error.strerror}; set --data.cache_dir or TEXTVAE_CACHE"
        ) from None
    return folder
