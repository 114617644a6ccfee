"""A VAE for binary images: train it, sample, reconstruct, interpolate, encode, save and load.

    model = ImageVAE.from_pretrained("runs/mnist")
    model.sample(64)                                  # x ~ p(x|z), z ~ N(0, I): (N, H, W)
    model.reconstruct(images), model.interpolate(images[0], images[1], steps=9)
    model.encode(images).mean, model.decode(z)
    model.walk(15)                                    # a grid over a two-dimensional latent

Images are (N, H, W) with values in [0, 1], as input and as output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from textvae.config.experiment import OF_ANY_MODEL, ImagesConfig, ModelConfig
from textvae.config.types import NonNegativeInt, PositiveInt, check_values
from textvae.errors import UserError
from textvae.images.datasets import as_batch
from textvae.images.decoders import MLPDecoder
from textvae.images.encoders import MLPEncoder, ResNetEncoder
from textvae.images.examples import ImageExamples
from textvae.images.pixelcnn import PixelCNN
from textvae.runs.model_folder import Description
from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import make_embedding
from textvae.vae.conditioning import check_condition, codes_of
from textvae.vae.conditions import ConditionKind, Given
from textvae.vae.heads import HeadKind, PosteriorKind, check_head, head_maker
from textvae.vae.model import Source, check_batch_size
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.priors import PriorKind, VampPrior, check_prior


class ImageVAE(ImageExamples, tags=["variational-autoencoder", "image-generation", "pixelcnn"]):
    """p(z) = N(0, I), a PixelCNN or MLP decoder p(x|z), a ResNet or MLP encoder q(z|x).

    Args:
        height: Height of the images.
        width: Width of the images.
        latent_dim: Size of z; 0 for a PixelCNN without a latent variable.
        injection: How z enters the decoder: ``none``, ``input`` or ``skip``.
        encoder: ``resnet`` for residual convolutions, ``mlp`` for fully connected layers.
        encoder_hidden: Feature maps of the ResNet, or units per layer of the MLP.
        encoder_layers: Number of residual blocks or hidden layers; 0 for a model without an
            encoder, whose posteriors are found only by gradient steps (SVI).
        decoder: ``pixelcnn`` for a gated PixelCNN, ``mlp`` for fully connected layers.
        decoder_hidden: Feature maps of the PixelCNN, or units per layer of the MLP.
        decoder_layers: Number of gated or hidden layers.
        kernel_size: Kernel size of the PixelCNN; odd.
        head: How the encoder makes the means of q(z|x): ``linear``, or normalized over the batch
            (``batch_norm``, ``du``, ``scale``); see ``textvae.vae.heads``.
        head_scale: Scale of the normalized means; None for the published value.
        posterior: Family of q(z|x): ``gaussian``, or ``vmf`` for von Mises-Fisher on the unit
            sphere, whose prior is uniform.
        kappa: Concentration of the von Mises-Fisher posterior.
        prior: p(z): ``standard``, or learned with the model: a ``mixture`` of Gaussians, or the
            posteriors of learned inputs (``vamp``); see ``textvae.vae.priors``.
        prior_components: Components of the mixture, or learned inputs.
        condition: What the encoder and the decoder read besides x and z: ``none``, the ``label`` of
            an image, or a ``number`` that takes its place; see ``textvae.vae.conditions``.
        condition_dim: Size of the learned vector of a label.
        num_labels: Number of labels.

    Raises:
        UserError: An argument is out of range, or two are incompatible.
    """

    DECODE_OPTIONS = ("condition",)
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
        head: HeadKind = "linear",
        head_scale: float | None = None,
        posterior: PosteriorKind = "gaussian",
        kappa: float = 13.0,
        prior: PriorKind = "standard",
        prior_components: int = 50,
        condition: ConditionKind = "none",
        condition_dim: int = 16,
        num_labels: int = 0,
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_arguments(config)
        super().__init__(
            self.make_encoder(config), self.make_decoder(config), self.make_prior(config), config
        )

    def make_encoder(self, config: dict[str, Any]) -> nn.Module | None:
        """Create the encoder from the model's arguments; override it to use a different one."""
        if not (config["latent_dim"] and config["encoder_layers"]):
            return None
        kind = ResNetEncoder if config["encoder"] == "resnet" else MLPEncoder
        head = head_maker(config)
        size = (config["height"], config["width"])
        shape = (config["encoder_hidden"], config["encoder_layers"])
        return kind(size, head, *shape, condition=make_embedding(config))

    def make_decoder(self, config: dict[str, Any]) -> nn.Module:
        """Create the decoder from the model's arguments; override it to use a different one."""
        size, latent_dim = (config["height"], config["width"]), config["latent_dim"]
        injection, shape = config["injection"], (config["decoder_hidden"], config["decoder_layers"])
        condition = make_embedding(config)
        if config["decoder"] == "mlp":
            return MLPDecoder(size, latent_dim, injection == "skip", *shape, condition)
        return PixelCNN(size, latent_dim, injection, *shape, config["kernel_size"], condition)

    def make_vamp_prior(self, config: dict[str, Any]) -> VampPrior:
        """Create a prior whose pseudo-inputs are gray images."""
        shape = (config["prior_components"], 1, config["height"], config["width"])
        return VampPrior(config["latent_dim"], torch.randn(shape), _gray)

    def batches(self, examples: Any, batch_size: int) -> Iterator[Batch]:
        """Split images (N, H, W) into batches."""
        pixels = self._pixels(examples)
        for index in torch.arange(len(pixels)).split(batch_size):
            yield as_batch(pixels[index], index)

    def _pixels(self, images: Tensor | np.ndarray | Sequence[Any]) -> Tensor:
        if isinstance(images, (list, tuple)) and len(images):
            images = torch.stack([torch.as_tensor(image) for image in images])
        pixels, size = torch.as_tensor(images), (self.config["height"], self.config["width"])
        if pixels.dim() != 3 or pixels.shape[1:] != size or not len(pixels):
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
        do_sample: bool = False,
        same_draws: bool = False,
    ) -> Tensor:
        """Generate one image per latent vector.

        Args:
            z: (N, Z).
            condition: As in ``encode``; None: drawn as often as it occurs in training.
            batch_size: Images per batch; does not change the results.
            seed: Seeds the sampling; image i is a function of z, the seed and i.
            do_sample: Sample the pixels. Otherwise return the probability of each pixel (MLP), or
                the more likely value of each pixel given those before it (PixelCNN).
            same_draws: Use the same random numbers for every image, so that images differ only
                because z does; also for a condition that is drawn.

        Returns:
            (N, H, W) on the CPU.

        Raises:
            UserError: z has the wrong shape.
        """
        check_batch_size(batch_size)
        z = self.check_z(z)
        noise = RowNoise(seed, Purpose.CONDITION, [0] * len(z) if same_draws else range(len(z)))
        codes = codes_of(self.condition, condition, len(z), noise)
        if codes is not None:
            z = self.decoder.with_condition(z, codes)
        pixels, images = self.config["height"] * self.config["width"], []
        for start, rows in zip(range(0, len(z), batch_size), z.split(batch_size), strict=False):
            uniforms = None
            if do_sample:
                numbers = [0] if same_draws else range(start, start + len(rows))
                noise = RowNoise(seed, Purpose.TOKENS, numbers)
                uniforms = noise.uniform(1, pixels)[0].to(z)
            images.append(self.decoder.sample(rows, uniforms).cpu())
        return torch.cat(images)

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
    ) -> Tensor:
        """Sample images: z ~ ``source``, then x ~ p(x|z).

        Args:
            n: Number of images, if ``z`` is not given.
            source: What z is drawn from: the ``prior``, or the sampler fitted to the ``aggregate``
                posterior (``textvae.fit_sampler``).
            z: Latent vectors (N, Z) to decode instead of draws from the source.
            condition: As in ``decode``.
            do_sample: As in ``decode``.
            seed: Seeds z and the pixels; image i depends only on the seed and i.
            batch_size: Images per batch; does not change the results.

        Returns:
            (N, H, W) on the CPU.
        """
        if n < 1:
            raise UserError(f"n={n}: must be at least 1")
        z = self.draw_z(n, seed, source) if z is None else z
        options: dict[str, Any] = {"condition": condition, "do_sample": do_sample}
        return self.decode(z, batch_size=batch_size, seed=seed, **options)

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
        ticks = torch.special.ndtri((torch.arange(side) + 0.5) / side)
        # Upward is positive, as in a plot.
        down, right = torch.meshgrid(-ticks, ticks, indexing="ij")
        points = torch.stack([right, down], dim=-1).view(-1, 2)
        return self.decode_path(points, **options)

    def describe(self) -> Description:
        """Return the description of this model for its model card."""
        named = {"mlp": "an MLP", "resnet": "a ResNet", "pixelcnn": "a PixelCNN"}
        decoder, encoder = (named[self.config[part]] for part in ("decoder", "encoder"))
        kind = (
            f"A variational autoencoder for binary images with {self.latent_dim} latent "
            f"dimensions, {encoder} encoder, and {decoder} decoder "
            f"(injection `{self.config['injection']}`)."
        )
        given = "" if self.condition is None else f", condition={self.condition.example}"
        uses = [f"model.sample(64{given})"]
        if self.latent_dim:
            uses += [f"model.{name}(images{given})" for name in ("reconstruct", "encode")]
        return Description("textvae image model", kind, "ImageVAE", uses)


def _gray(inputs: Tensor) -> Batch:
    """Return a batch of gray images (C, 1, H, W) from unbounded values."""
    return Batch(inputs.sigmoid())


_SHARED = {name: get_type_hints(ModelConfig)[name] for name in OF_ANY_MODEL}
ARGUMENTS = get_type_hints(ImagesConfig) | _SHARED | {"height": PositiveInt, "width": PositiveInt}
ARGUMENTS |= {"num_labels": NonNegativeInt}
# Where z can enter each decoder, and why not elsewhere.
INJECTIONS = {"pixelcnn": ("none", "input", "skip"), "mlp": ("input", "skip")}
REASONS = {
    "init": "sets an initial state, which only a recurrent decoder has",
    "none": "leaves an MLP decoder without any input",
}


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check arguments of ``ImageVAE``; the image size may be missing.

    Raises:
        UserError: An argument has the wrong type or is out of range, or two are incompatible.
    """
    check_values(ARGUMENTS, arguments, "model: ")
    check_head(arguments)
    check_prior(arguments)
    check_condition(arguments)
    if arguments["kernel_size"] % 2 == 0:
        raise UserError(f"model: kernel_size {arguments['kernel_size']}: must be odd")
    injection, possible = arguments["injection"], INJECTIONS[arguments["decoder"]]
    if injection not in possible:
        raise UserError(
            f"model: injection {injection} {REASONS[injection]}: with the {arguments['decoder']} "
            f"decoder, choose {' or '.join(possible)}"
        )
    alone = arguments["condition"] == "none"
    if not arguments["latent_dim"] and injection != "none" and alone:
        remedy = "injection none" if "none" in possible else "the pixelcnn decoder"
        raise UserError(f"model: latent_dim 0 leaves no z for injection {injection}: use {remedy}")
    side, blocks = min(arguments.get("height", 2**30), arguments.get("width", 2**30)), 0
    if arguments["encoder"] == "resnet":
        blocks = arguments["encoder_layers"]
    if side >> blocks == 0:
        raise UserError(
            f"model: encoder_layers {blocks}: too many halvings for images of {side} pixels: use "
            "fewer layers"
        )
