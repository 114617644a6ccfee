"""A VAE for binary images: train it, sample, reconstruct, interpolate, encode, save and load.

    model = ImageVAE.from_pretrained("runs/mnist")
    model.sample(64)                                  # x ~ p(x|z), z ~ p(z): (N, H, W)
    model.reconstruct(images), model.interpolate(images[0], images[1], steps=9)
    model.encode(images).mean, model.decode(z)
    model.walk(15)                                    # a grid over a two-dimensional latent

Images are (N, H, W) with values in [0, 1], as input and as output.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from textvae.config.choices import (
    ConditionKind,
    HeadKind,
    ImageDecoder,
    ImageEncoder,
    ImageInjection,
    PosteriorKind,
    PriorKind,
)
from textvae.config.experiment import OF_ANY_MODEL, ImagesConfig, ModelConfig
from textvae.config.types import NonNegativeInt, PositiveInt, check_values
from textvae.errors import UserError, quantity
from textvae.images.decoders import MLPDecoder
from textvae.images.encoders import MLPEncoder, ResNetEncoder
from textvae.images.images import Images
from textvae.images.pixelcnn import PixelCNN
from textvae.runs.model_folder import Description, public_module
from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import make_embedding
from textvae.vae.conditioning import check_condition
from textvae.vae.heads import check_head
from textvae.vae.priors import VampPrior, check_prior

NAMED = {"mlp": "an MLP", "resnet": "a ResNet", "pixelcnn": "a PixelCNN"}  # in a model card


class ImageVAE(Images, tags=["variational-autoencoder", "image-generation", "pixelcnn"]):
    """p(z), a PixelCNN or MLP decoder p(x|z), a ResNet or MLP encoder q(z|x).

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

    ESSENTIAL = "height"

    def __init__(
        self,
        height: int,
        width: int,
        latent_dim: int = 32,
        injection: ImageInjection = "skip",
        encoder: ImageEncoder = "resnet",
        encoder_hidden: int = 64,
        encoder_layers: int = 3,
        decoder: ImageDecoder = "pixelcnn",
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
        head = partial(self.make_head, config)
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

    def describe(self) -> Description:
        """Return the description of this model for its model card."""
        decoder, encoder = (NAMED[self.config[part]] for part in ("decoder", "encoder"))
        kind = f"A{decoder[1:]} for binary images, the baseline without a latent variable."
        if self.latent_dim:
            encoder = f"{encoder} encoder" if self.has_encoder else "no encoder"
            kind = (
                f"A variational autoencoder for binary images with "
                f"{quantity(self.latent_dim, 'latent dimension')}, {encoder}, and {decoder} "
                f"decoder (injection `{self.config['injection']}`)."
            )
        given = "" if self.condition is None else f", condition={self.condition.example}"
        uses = [f"model.sample(64{given})"]
        if self.latent_dim:
            uses += [f"model.{name}(images{given})" for name in ("reconstruct", "encode")]
        if type(self) is not ImageVAE:
            kind = f"{kind[:-1]}, with custom parts (class `{type(self).__name__}`)."
        name, module = type(self).__name__, public_module(type(self))
        return Description("textvae image model", kind, module, name, uses)


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
