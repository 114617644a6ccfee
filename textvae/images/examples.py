"""Images in files, on pages, and in a PNG file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.images.datasets import pick_images, read_image_file
from textvae.images.pictures import PngWriter, as_png
from textvae.vae.batch import Split
from textvae.vae.examples import Examples, Shown
from textvae.vae.model import Model


class ImageExamples(Model):
    """A model whose examples are binary images."""

    KIND = "image"
    ON_A_PAGE = 20

    def show_rows(self, split: Split, rows: Sequence[int]) -> list[Shown]:
        """Return the images of these rows as PNG files."""
        return [as_png(image) for image in split.batch(np.asarray(rows, dtype=np.int64)).x[:, 0]]

    def show_decoded(
        self,
        z: Tensor,
        *,
        sampled: bool = False,
        same_draws: bool = False,
        seed: int = 0,
        **given: Any,
    ) -> list[Shown]:
        """Return an image for every z as a PNG file: sampled (PixelCNN), or its means (MLP)."""
        options = {"do_sample": self.samples_pixels, "same_draws": same_draws}
        return [as_png(image) for image in self.decode(z, seed=seed, **options, **given)]

    @property
    def samples_pixels(self) -> bool:
        """Whether pixels have to be sampled: the most likely image of a PixelCNN is often black."""
        return self.config["decoder"] == "pixelcnn"

    def read_examples(self, source: str, usual: Any = None, **options: Any) -> Examples:
        """Read the images in a file or a folder, which have no other layouts to choose from."""
        if options:
            given = " and ".join(f"--data.{name}" for name in options)
            raise UserError(f"{given}: only for text files, but this is an image model")
        return read_image_file(Path(source))

    def pick_examples(self, names: Sequence[str], read_split: Callable[[], Split]) -> Examples:
        """Return the images of the test split with these indices, or its first ones."""
        return pick_images(names, read_split())

    def presenter(self, *, out: Path | None, format: str, show_sources: bool) -> PngWriter:
        """Return a writer of a PNG file."""
        return PngWriter(out)

    def previews(self, split: Split, count: int) -> dict[str, Tensor]:
        """Generate samples, and images of the split (above) with reconstructions (below)."""
        shown = {"samples": self.sample(count)[:, None]}
        if self.latent_dim:
            rows = np.arange(min(count, len(split)))
            originals, given = split.batch(rows).x[:, 0], self.conditions_in(split, rows)
            outputs = self.reconstruct(originals, do_sample=self.samples_pixels, **given)
            pairs = torch.cat([originals, outputs], dim=1)
            shown["reconstructions"] = pairs[:, None]
        return shown
