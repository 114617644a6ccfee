"""A VAE of black and white images and everything one can do with it.

    model = ImageVAE.from_pretrained("runs/mnist")
    model.sample(64)                                  # x ~ p(x|z), z ~ N(0, I): (N, H, W)
    model.reconstruct(images), model.interpolate(images[0], images[1], steps=9)
    model.encode(images).mean, model.decode(z)
    model.walk(15)                                    # over a latent of two dimensions

Images go in and come out as numbers from 0 to 1, (N, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.images.checks import check_arguments
from textvae.images.datasets import as_batch
from textvae.images.decoders import MLPDecoder
from textvae.images.encoders import MLPEncoder, ResNetEncoder
from textvae.images.pixelcnn import PixelCNN
from textvae.runs.model_folder import Description
from textvae.vae.batching import Split
from textvae.vae.inference import infer
from textvae.vae.model import Model, check_batch_size
from textvae.vae.noise import normal_rows, step_rows, uniform_rows
from textvae.vae.posteriors import DiagGaussian


class ImageVAE(Model, tags=["variational-autoencoder", "image-generation", "pixelcnn"]):
    """p(z) = N(0, I), a PixelCNN or MLP decoder p(x|z), a ResNet or MLP encoder q(z|x).

    Args:
        height, width: of the images.
        latent_dim: size of z; 0 for a PixelCNN without a latent.
        injection: how z enters the decoder: ``none``, ``input``, ``skip``.
        encoder_layers: 0 for a model whose posteriors are found by gradient steps alone (SVI).
        kernel_size: of the PixelCNN.

    Raises:
        UserError: an argument out of range.
    """

    ESSENTIAL = "height"

    def __init__(
        self,
        height: int,
        width: int,
        latent_dim: int = 32,
        injection: Literal["none", "input", "skip"] = "skip",
        encoder: Literal["resnet", "mlp"] = "resnet",
        encoder_hidden: int = 64,
        encoder_layers: int = 3,
        decoder: Literal["pixelcnn", "mlp"] = "pixelcnn",
        decoder_hidden: int = 32,
        decoder_layers: int = 9,
        kernel_size: int = 3,
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_arguments(config)
        size, q, p = (height, width), None, None
        if latent_dim and encoder_layers:
            kind = ResNetEncoder if encoder == "resnet" else MLPEncoder
            q = kind(size, latent_dim, encoder_hidden, encoder_layers)
        if decoder == "mlp":
            p = MLPDecoder(size, latent_dim, injection == "skip", decoder_hidden, decoder_layers)
        else:
            shape = (decoder_hidden, decoder_layers, kernel_size)
            p = PixelCNN(size, latent_dim, injection, *shape)
        super().__init__(q, p, latent_dim, config)

    @torch.no_grad()
    def encode(
        self,
        images: Tensor | np.ndarray | Sequence[Any],
        *,
        refine_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> DiagGaussian:
        """q(z|x) of images (N, H, W): mean and logvar (N, Z), in the order given.

        Args:
            refine_steps: gradient steps on the ELBO that refine q; as in training where it is not
                given, 0 for the encoder alone.
            seed: of the noise in these steps.

        Raises:
            UserError: the model has no latent, no encoder for 0 steps, or images of another size.
        """
        if not self.latent_dim:
            raise UserError("this model has no latent (latent_dim 0): it can only sample")
        check_batch_size(batch_size)
        inference = self.inference_with(refine_steps)
        steps = 0 if inference.method == "amortised" else inference.steps
        parts = []
        for rows in self._pixels(images).split(batch_size):
            index = torch.arange(len(rows)) + sum(len(q.mean) for q in parts)
            noise = step_rows(index.tolist(), steps, self.latent_dim, seed).to(self.device)
            batch = as_batch(rows, index).to(self.device)
            parts.append(infer(self, batch, inference, noise=noise).posterior)
        return DiagGaussian(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _pixels(self, images: Tensor | np.ndarray | Sequence[Any]) -> Tensor:
        if isinstance(images, (list, tuple)):
            images = torch.stack([torch.as_tensor(image) for image in images])
        pixels, size = torch.as_tensor(images), (self.config["height"], self.config["width"])
        if pixels.dim() != 3 or pixels.shape[1:] != size or not len(pixels):
            raise UserError(f"images must be (N, {size[0]}, {size[1]}), not {tuple(pixels.shape)}")
        if pixels.min() < 0 or pixels.max() > 1:
            raise UserError("images must be numbers from 0 to 1: divide bytes by 255")
        return pixels.float()

    def decode(
        self,
        z: Tensor,
        *,
        batch_size: int = 64,
        seed: int = 0,
        do_sample: bool = False,
        same_draws: bool = False,
    ) -> Tensor:
        """Images (N, H, W) on the CPU for every z (N, Z).

        Args:
            batch_size: images at once; no result depends on it.
            do_sample: draw the pixels; else the chance of each (MLP), or its likelier value given
                those before it (PixelCNN).
            seed: of the draws; image i is a function of z, of the seed and of i.
            same_draws: not of i, so that images differ by their z alone.

        Raises:
            UserError: z has another shape.
        """
        check_batch_size(batch_size)
        z = self.check_z(z)
        pixels, images = self.config["height"] * self.config["width"], []
        for start, rows in zip(range(0, len(z), batch_size), z.split(batch_size), strict=False):
            uniforms = None
            if do_sample:
                whose = (1, pixels, seed, 0) if same_draws else (len(rows), pixels, seed, start)
                uniforms = uniform_rows(*whose).to(z)
            images.append(self.decoder.sample(rows, uniforms).cpu())
        return torch.cat(images)

    def sample(
        self,
        n: int = 10,
        *,
        z: Tensor | None = None,
        do_sample: bool = True,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Tensor:
        """Images (N, H, W) of the model: z ~ N(0, I) where none is given, then x ~ p(x|z)."""
        if n < 1:
            raise UserError(f"n={n}: a number of images")
        z = normal_rows(n, self.latent_dim, seed) if z is None else z
        return self.decode(z, batch_size=batch_size, seed=seed, do_sample=do_sample)

    def walk(self, side: int = 15, **options: Any) -> Tensor:
        """Images (side * side, H, W) row by row over a latent of two dimensions, at even quantiles
        of the prior.

        Raises:
            UserError: the latent has another number of dimensions.
        """
        if self.latent_dim != 2:
            raise UserError(
                f"a walk needs a latent of 2 dimensions, and this has {self.latent_dim}"
            )
        ticks = torch.special.ndtri((torch.arange(side) + 0.5) / side)
        down, right = torch.meshgrid(-ticks, ticks, indexing="ij")  # up is more, as in a plot
        points = torch.stack([right, down], dim=-1).view(-1, 2)
        return self.decode(points, same_draws=True, **options)

    def exhibits(self, split: Split, count: int) -> dict[str, Tensor]:
        """Images sampled, and images of the split (above) with what becomes of them (below)."""
        shown = {"samples": self.sample(count)[:, None]}
        if self.latent_dim:
            originals = split.thumbnails(count)[:, 0]
            outputs = self.reconstruct(originals, do_sample=self.config["decoder"] == "pixelcnn")
            pairs = torch.cat([originals, outputs], dim=1)
            shown["reconstructions"] = pairs[:, None]
        return shown

    def describe(self) -> Description:
        """What the model card says of this model."""
        parts = {name: self.config[name] for name in ("decoder", "encoder", "injection")}
        kind = (
            f"A variational autoencoder of black and white images: z has {self.latent_dim} "
            f"dimensions and enters the {parts['decoder']} decoder by `{parts['injection']}`; the "
            f"encoder is of kind {parts['encoder']}."
        )
        uses = ["model.sample(64)"]
        if self.latent_dim:
            uses += ["model.reconstruct(images)", "model.encode(images)"]
        return Description("textvae model of images", kind, "ImageVAE", uses)
