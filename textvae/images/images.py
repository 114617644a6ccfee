"""Images in and out of a model: batches of pixels for the encoder, images from the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.config.arguments import check_integers
from textvae.errors import UserError
from textvae.images.datasets import as_batch
from textvae.images.examples import ImageExamples
from textvae.vae.batch import Batch
from textvae.vae.conditioning import codes_of
from textvae.vae.conditions import Given
from textvae.vae.model import Source
from textvae.vae.noise import Purpose, RowNoise


class Images(ImageExamples):
    """A model that reads and draws images."""

    DECODE_OPTIONS = ("condition",)

    def batches(self, examples: Any, batch_size: int) -> Iterator[Batch]:
        """Split images (N, H, W) into batches."""
        pixels = self._pixels(examples)
        if not len(pixels):
            yield as_batch(pixels.new_zeros(1, *pixels.shape[1:]), torch.tensor([-1]))
            return
        for index in torch.arange(len(pixels)).split(batch_size):
            yield as_batch(pixels[index], index)

    def _pixels(self, images: Tensor | np.ndarray | Sequence[Any]) -> Tensor:
        size = (self.config["height"], self.config["width"])
        try:
            if isinstance(images, (list, tuple)) and len(images):
                images = torch.stack([torch.as_tensor(image) for image in images])
            pixels = torch.as_tensor(images)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"images must be arrays of numbers ({error})") from error
        if not pixels.numel():
            return torch.zeros(0, *size)
        if pixels.dim() != 3 or pixels.shape[1:] != size:
            raise UserError(f"images must be (N, {size[0]}, {size[1]}), not {tuple(pixels.shape)}")
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):  # NaN neither
            raise UserError("images must be numbers from 0 to 1: divide bytes by 255")
        return pixels.float()

    def decode(  # type: ignore[override]  # its options by name
        self,
        z: Tensor,
        *,
        condition: Given | None = None,
        batch_size: int = 64,
        seed: int = 0,
        first_row: int = 0,
        do_sample: bool = False,
        same_draws: bool = False,
    ) -> Tensor:
        """Generate one image per latent vector.

        Args:
            z: (N, Z).
            condition: As in ``encode``; None: drawn as often as it occurs in training.
            batch_size: Images per batch; does not change the results.
            seed: Seeds the sampling; image i is a function of z, the seed and i.
            first_row: Number of the first image.
            do_sample: Sample the pixels. Otherwise return the probability of each pixel (MLP), or
                the more likely value of each pixel given those before it (PixelCNN).
            same_draws: Use the same random numbers for every image, so that images differ only
                because z does; also for a condition that is drawn.

        Returns:
            (N, H, W) on the CPU.

        Raises:
            UserError: z has the wrong shape.
        """
        check_integers(1, batch_size=batch_size)
        z = self.check_z(z)
        numbers = range(first_row, first_row + len(z))
        own = [0] * len(z) if same_draws else numbers
        noise = RowNoise(seed, Purpose.CONDITION, own)
        codes = codes_of(self.condition, condition, len(z), noise)
        if codes is not None:
            z = self.decoder.with_condition(z, codes)
        pixels, images = self.config["height"] * self.config["width"], []
        for start, rows in zip(range(0, len(z), batch_size), z.split(batch_size), strict=False):
            uniforms = None
            if do_sample:
                own = [0] if same_draws else numbers[start : start + len(rows)]
                noise = RowNoise(seed, Purpose.TOKENS, own)
                uniforms = noise.uniform(1, pixels)[0].to(z)
            images.append(self.decoder.sample(rows, uniforms).cpu())
        shape = (0, self.config["height"], self.config["width"])
        return torch.cat(images) if images else torch.empty(shape)

    def sample(  # type: ignore[override]  # its options by name
        self,
        n: int = 10,
        *,
        source: Source = "prior",
        z: Tensor | None = None,
        condition: Given | None = None,
        do_sample: bool = True,
        seed: int = 0,
        batch_size: int = 64,
        first_row: int = 0,
    ) -> Tensor:
        """Sample images: z ~ ``source``, then x ~ p(x|z).

        Args:
            n: Number of images; ignored if ``z`` is given.
            source: What z is drawn from: the ``prior``, or the sampler fitted to the ``aggregate``
                posterior (``textvae.fit_sampler``).
            z: Latent vectors (N, Z) to decode instead of draws from the source.
            condition: As in ``decode``.
            do_sample: As in ``decode``.
            seed: Seeds z and the pixels; image i depends only on the seed and i.
            batch_size: Images per batch; does not change the results.
            first_row: Number of the first image, to draw a large sample in parts.

        Returns:
            (N, H, W) on the CPU.
        """
        check_integers(0, n=n)
        z = self.draw_z(n, seed, source, first_row) if z is None else z
        options: dict[str, Any] = {"condition": condition, "do_sample": do_sample}
        return self.decode(z, batch_size=batch_size, seed=seed, first_row=first_row, **options)

    def simulate(
        self, count: int, *, seed: int = 0, batch_size: int = 32
    ) -> Iterator[tuple[Batch, Tensor]]:
        """See ``Model.simulate``."""
        check_integers(0, count=count)
        check_integers(1, batch_size=batch_size)
        z = self.check_z(self.draw_z(count, seed))
        noise = RowNoise(seed, Purpose.CONDITION, range(count))
        codes = codes_of(self.condition, None, count, noise)
        images = self.decode(z, do_sample=True, seed=seed, batch_size=batch_size)
        for index in torch.arange(count).split(batch_size) if count else ():
            batch = as_batch(images[index], index)
            yield replace(batch, condition=None if codes is None else codes[index]), z[index]

    def decode_path(self, z: Tensor, *, same_draws: bool = True, **options: Any) -> Tensor:
        """See ``Model.decode_path``: by default, sampled pixels differ only because z does."""
        return self.decode(z, same_draws=same_draws, **options)

    def walk(self, side: int = 15, **options: Any) -> Tensor:
        """Decode a grid over a two-dimensional latent space, at evenly spaced prior quantiles.

        Args:
            side: Points along each dimension.
            options: As in ``decode``.

        Returns:
            (side * side, H, W), row by row.

        Raises:
            UserError: The latent space does not have two dimensions, or the prior is learned.
        """
        if self.latent_dim != 2:
            raise UserError(
                f"a walk needs 2 latent dimensions, but this model has {self.latent_dim}"
            )
        if self.on_sphere:
            raise UserError("a walk needs a plane, but the latent space of this model is a circle")
        if self.config["prior"] != "standard":
            raise UserError(
                "a walk follows the quantiles of N(0, I), but this model learned its prior: use "
                "sample instead"
            )
        check_integers(1, side=side)
        ticks = torch.special.ndtri((torch.arange(side) + 0.5) / side)
        # Upward is positive, as in a plot.
        down, right = torch.meshgrid(-ticks, ticks, indexing="ij")
        points = torch.stack([right, down], dim=-1).view(-1, 2)
        return self.decode_path(points, **options)
