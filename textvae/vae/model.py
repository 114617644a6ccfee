"""A VAE of any kind of data as its user holds it: encoded, decoded, saved, loaded, published.

A kind of data adds two methods, from its examples to z and back: ``encode`` and ``decode``. All
else is made of these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from textvae.config.inference import Inference, with_steps
from textvae.errors import UserError
from textvae.runs import model_folder as pretrained
from textvae.vae.batching import Split
from textvae.vae.noise import between, normal_rows
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

Self = TypeVar("Self", bound="Model")


class Model(VAE, PyTorchModelHubMixin, library_name="textvae", license="mit"):
    """A VAE with the arguments it was made from, its way of inference, and its scores."""

    ESSENTIAL: ClassVar[str]  # the argument that tells this kind of model from others
    inference: Inference  # how q(z|x) is found; its steps depend on nothing but the example

    def __init__(
        self,
        encoder: nn.Module | None,
        decoder: nn.Module,
        latent_dim: int,
        config: dict[str, Any],
    ) -> None:
        super().__init__(encoder, decoder, latent_dim)
        self.config = config
        self.inference = pretrained.DEFAULT_INFERENCE
        self.metrics: dict[str, Any] = {}  # for the model card

    def encode(
        self,
        examples: Any,
        *,
        refine_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> DiagGaussian:
        """q(z|x) of every example: mean and logvar (N, Z), in the order given."""
        raise NotImplementedError

    def decode(self, z: Tensor, *, batch_size: int = 64, seed: int = 0, **options: Any) -> Any:
        """An example for every z (N, Z)."""
        raise NotImplementedError

    def exhibits(self, split: Split, count: int) -> dict[str, list[str] | Tensor]:
        """Samples and reconstructions to look at, by title: lines, or pictures (N, 1, H, W)."""
        raise NotImplementedError

    def describe(self) -> pretrained.Description:
        """What the model card says of this model."""
        raise NotImplementedError

    def inference_with(self, refine_steps: int | None) -> Inference:
        """The model's inference with another number of refinement steps.

        Raises:
            UserError: fewer than possible, or there is no latent to refine.
        """
        if refine_steps and not self.latent_dim:
            raise UserError(f"refine_steps={refine_steps}: this model has no latent to refine")
        try:
            return with_steps(self.inference, refine_steps, self.encoder is not None)
        except ValueError as error:
            raise UserError(f"refine_steps={refine_steps}: {error}") from error

    def check_z(self, z: Tensor) -> Tensor:
        """z (N, Z) on the model's device.

        Raises:
            UserError: it has another shape.
        """
        z = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        if z.dim() != 2 or z.size(1) != self.latent_dim:
            raise UserError(
                f"z must be (N, {self.latent_dim}) for this model, not {tuple(z.shape)}"
            )
        return z

    def reconstruct(
        self,
        examples: Any,
        *,
        use: Literal["mean", "sample"] = "mean",
        refine_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
        **options: Any,
    ) -> Any:
        """Each example through z and back: from the mean of q(z|x), or from a draw of it.

        ``refine_steps`` as in ``encode``; other options as in ``decode``.
        """
        if use not in ("mean", "sample"):
            raise UserError(f"use={use!r}: mean or sample")
        q = self.encode(examples, refine_steps=refine_steps, seed=seed, batch_size=batch_size)
        z = q.mean
        if use == "sample":
            noise = normal_rows(len(z), self.latent_dim, seed).to(z.device)
            z = z + torch.exp(0.5 * q.logvar) * noise
        return self.decode(z, batch_size=batch_size, seed=seed, **options)

    def interpolate(
        self,
        a: Any,
        b: Any,
        steps: int = 7,
        kind: Literal["linear", "spherical"] = "linear",
        *,
        refine_steps: int | None = None,
        **options: Any,
    ) -> Any:
        """Examples from ``a`` to ``b``: along the line, or the arc, between their means.

        Args:
            steps: how many, the two ends counted.
            refine_steps: as in ``encode``.
            options: as in ``decode``.
        """
        if steps < 2:
            raise UserError(f"steps={steps}: an interpolation has at least its 2 ends")
        start, end = self.encode([a, b], refine_steps=refine_steps).mean
        return self.decode(between(start, end, steps, kind), **options)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> str | None:
        """Writes the model folder, and sends it to the hub if asked; returns the commit's URL.

        Raises:
            UserError: the folder cannot be written; what was there before is intact.
        """
        folder = Path(save_directory)
        self._save_pretrained(folder)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, **hub_options)

    def _save_pretrained(self, save_directory: Path) -> None:
        pretrained.save_weights(self, save_directory / pretrained.WEIGHTS, self._metadata())
        self._save_more(save_directory)
        pretrained.write_config(save_directory, self.config)
        pretrained.write_inference(save_directory, self.inference)
        header = f"---\n{self._hub_mixin_info.model_card_data.to_yaml()}\n---"
        card = (header, self.describe(), self.config, self.metrics)
        pretrained.write_card(save_directory, *card)

    def _metadata(self) -> dict[str, str]:
        """What is said beside the weights."""
        return {}

    def _save_more(self, folder: Path) -> None:
        """Writes what a kind of data needs beside the weights."""

    def _load_more(self, folder: Path) -> None:
        """Reads it."""

    @classmethod
    def from_pretrained(
        cls: type[Self],
        pretrained_model_name_or_path: str | Path,
        *,
        map_location: str | torch.device = "cpu",
        **hub_options: Any,
    ) -> Self:
        """A model, ready for use, out of its folder or from the hub.

        Args:
            map_location: the device to load it to.
            hub_options: revision, token, cache_dir, force_download, local_files_only.

        Raises:
            UserError: the folder is missing or broken, or the hub cannot be reached.
        """
        # The mixin would pass on JSON errors of config.json as they are: the folder is read here.
        folder = pretrained.fetch(str(pretrained_model_name_or_path), **hub_options)
        return cls._from_pretrained(model_id=str(folder), map_location=map_location)

    @classmethod
    def _from_pretrained(
        cls: type[Self], *, model_id: str, map_location: str | torch.device = "cpu", **_: Any
    ) -> Self:
        folder = Path(model_id)
        known = set(cls._hub_mixin_init_parameters) - {"self"}
        config = pretrained.read_config(folder)
        pretrained.check_names(config, known, cls.ESSENTIAL, folder / pretrained.CONFIG)
        with torch.device("meta"):  # no memory, no random numbers: the weights are about to come
            model = cls(**config)
        pretrained.load_weights(model, folder / pretrained.WEIGHTS, map_location)
        model._load_more(folder)
        model.inference = pretrained.read_inference(folder)
        model.metrics = pretrained.read_metrics(folder)
        return model.eval()


def check_batch_size(batch_size: int) -> None:
    """Raises a ``UserError`` below 1."""
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be at least 1")
