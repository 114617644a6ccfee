"""textvae: text variational autoencoders whose latent variable is really used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textvae.config.experiment import Config
    from textvae.images.model import ImageVAE
    from textvae.text.model import TextVAE

__version__ = "0.1.0"
__all__ = ["Config", "ImageVAE", "TextVAE", "__version__"]


def __getattr__(name: str) -> object:
    # torch takes seconds to import: only those who ask for a model wait for it
    if name == "TextVAE":
        from textvae.text.model import TextVAE

        return TextVAE
    if name == "ImageVAE":
        from textvae.images.model import ImageVAE

        return ImageVAE
    if name == "Config":
        from textvae.config.experiment import Config

        return Config
    raise AttributeError(f"module 'textvae' has no attribute {name!r}")
