"""The cache folder, shared by all runs of a user."""

import os
from pathlib import Path

from textvae.errors import UserError


def cache_folder(cache_dir: str | Path | None) -> Path:
    """`cache_dir`, or $TEXTVAE_CACHE, or ~/.cache/textvae; created if need be.

    Raises:
        UserError: it cannot be created.
    """
    chosen = cache_dir or os.environ.get("TEXTVAE_CACHE") or Path.home() / ".cache" / "textvae"
    folder = Path(chosen).expanduser()
    try:
        for part in ("sources", "texts", "tokenizers", "encoded"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache folder {folder}: {error.strerror}; set --data.cache_dir or TEXTVAE_CACHE"
        ) from None
    return folder
