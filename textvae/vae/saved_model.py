"""A VAE with its arguments, in a folder or on the Hugging Face Hub.

The folder holds weights (safetensors), the arguments and the inference options (JSON), and a model
card; nothing in it is executed when it is loaded.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from textvae.config.inference import DEFAULT_INFERENCE, Inference
from textvae.errors import UserError
from textvae.runs import model_folder as pretrained
from textvae.runs.weights import load_weights, read_metadata, save_weights
from textvae.vae.batch import check_device
from textvae.vae.conditions import Condition, load_condition, save_condition
from textvae.vae.modes import ordinary_tensors
from textvae.vae.samplers import MixtureSampler
from textvae.vae.vae import VAE

CLASS = "class"  # key of the name of a model's class in the metadata of its weights

Self = TypeVar("Self", bound="SavedModel")


class _Uninitialized(TorchFunctionMode):
    """Skips ``torch.nn.init``, which takes over a second on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" and func.__name__.endswith("_"):
            tensor: Tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            return tensor
        return func(*args, **kwargs)


class SavedModel(VAE, PyTorchModelHubMixin, library_name="textvae"):
    """A VAE together with its arguments, its inference options, and its scores."""

    ESSENTIAL: ClassVar[str]  # the argument that only this kind of model has
    inference: Inference  # how q(z|x) is found; its steps do not depend on the batch

    def __init__(
        self,
        encoder: nn.Module | None,
        decoder: nn.Module,
        prior: nn.Module,
        config: dict[str, Any],
    ) -> None:
        if encoder is None and config["latent_dim"] and config["encoder_layers"]:
            raise TypeError("make_encoder returned None: return the encoder")
        super().__init__(encoder, decoder, prior)
        self.config = config
        self.inference = DEFAULT_INFERENCE
        self.metrics: dict[str, Any] = {}  # for the model card
        self.sampler: MixtureSampler | None = None  # fitted to the aggregate posterior
        self._condition: Condition | None = None

    @property
    def condition(self) -> Condition | None:
        """What the encoder and the decoder read besides x and z; None if it is nothing.

        Raises:
            UserError: The model was built with one, which nobody has set.
        """
        kind = self.config.get("condition", "none")
        if self._condition is None and kind != "none":
            name = "Classes" if kind == "label" else "Numbers"
            raise UserError(
                f"this model is conditioned on a {kind}: set model.condition first, to a "
                f"textvae.vae.conditions.{name} (textvae.train does it)"
            )
        return self._condition

    @condition.setter
    def condition(self, condition: Condition | None) -> None:
        self._condition = condition

    def describe(self) -> pretrained.Description:
        """Return the description of this model for its model card."""
        raise NotImplementedError

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> str | None:
        """Write the model folder, and optionally push it to the Hub; returns the commit's URL.

        Raises:
            UserError: The folder cannot be written, or a part that was replaced does not fit the
                model; the previous weights are intact.
        """
        folder = Path(save_directory)
        self._save_pretrained(folder)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, **hub_options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the model folder on the Hugging Face Hub; returns the commit's URL.

        Args:
            repo_id: Name on the Hub, such as ``user/model``.
            options: As in ``huggingface_hub.ModelHubMixin.push_to_hub``.

        Raises:
            UserError: The model cannot be saved, or the Hub cannot be reached or refuses it.
        """
        try:
            return str(super().push_to_hub(repo_id, **options))
        except (TypeError, UserError):  # an unknown option; a model that cannot be saved
            raise
        except Exception as error:  # the Hub's client raises many unrelated types
            raise UserError(
                f"{repo_id!r} could not be pushed to the Hugging Face Hub: "
                f"{pretrained.hub_reason(error)}"
            ) from error

    def _save_pretrained(self, save_directory: Path) -> None:
        metadata, condition = self._metadata(), self.condition  # first, because they may refuse
        sampler = save_directory / pretrained.SAMPLER
        with suppress(OSError):  # where nothing can be removed, nothing can be written either
            sampler.unlink()  # first, so that it never lies next to other weights
        save_weights(self, save_directory / pretrained.WEIGHTS, metadata)
        self._save_more(save_directory)
        pretrained.write_config(save_directory, self.config | self.own_options())
        self.inference.save(save_directory / pretrained.INFERENCE)
        if self.sampler is not None:
            self.sampler.save(sampler)
        if condition is not None:
            save_condition(condition, save_directory / pretrained.CONDITION)
        self.write_card(save_directory)

    def write_card(self, folder: Path) -> None:
        """Write the model card into the folder of this model, unless a person has written one."""
        header = f"---\n{self._hub_mixin_info.model_card_data.to_yaml()}\n---"
        pretrained.write_card(folder, header, self.describe(), self.config, self.metrics)

    def _metadata(self) -> dict[str, str]:
        """Return strings to store with the weights.

        Raises:
            UserError: A part that was replaced does not fit the model.
        """
        return {CLASS: type(self).__name__}

    @classmethod
    def _arguments(cls) -> set[str]:
        """Return the names of the constructor's arguments, with those that it hands on."""
        names: set[str] = set()
        for base in cls.__mro__:
            if "__init__" in vars(base):
                parameters = inspect.signature(base).parameters.values()
                named = {p.name for p in parameters if p.kind != p.VAR_POSITIONAL}
                rest = {p.name for p in parameters if p.kind == p.VAR_KEYWORD}
                names |= named - rest
                if not rest:
                    break
        return names

    def own_options(self) -> dict[str, Any]:
        """Return the constructor's arguments that a subclass has added."""
        given: Any = self._hub_mixin_config
        added = self._arguments() - self.config.keys()
        return {name: given[name] for name in sorted(added) if name in given}

    @classmethod
    def _made(cls: type[Self], config: dict[str, Any]) -> Self:
        """Make a model whose weights are about to be replaced, without touching random numbers."""
        if pretrained.is_built_in(cls):
            with torch.device("meta"), _Uninitialized():  # without memory, in no time
                return cls(**config)
        with torch.random.fork_rng(devices=[]):  # user-defined parts may need their first values
            return cls(**config)

    @classmethod
    def check_class(cls, folder: Path) -> None:
        """Check that the model in a folder is of this class, as far as it says so.

        Raises:
            UserError: It is of another one, whose parts may be different.
        """
        if not cls.is_class_of(folder):
            name = read_metadata(folder / pretrained.WEIGHTS)[CLASS]
            if name in (base.__name__ for base in cls.__mro__):
                raise UserError(
                    f"the model in {folder} is a {name}, not a {cls.__name__}: leave out the class "
                    f"(--own-model), or in Python use {name}.from_pretrained"
                )
            raise UserError(
                f"the model in {folder} is of the class {name}, not {cls.__name__}: give "
                f"--own-model FILE.py:{name}; in Python, load it with {name}.from_pretrained, pass "
                "it as model=... (report takes models=...), or continue its training with "
                f"model_class={name}"
            )

    @classmethod
    def is_class_of(cls, folder: Path) -> bool:
        """Return whether the model in a folder is of this class, as far as it says so."""
        return read_metadata(folder / pretrained.WEIGHTS).get(CLASS, cls.__name__) == cls.__name__

    def _save_more(self, folder: Path) -> None:
        """Write the other files that a kind of data needs."""

    def _load_more(self, folder: Path) -> None:
        """Read the files that ``_save_more`` wrote."""

    @classmethod
    def from_pretrained(
        cls: type[Self],
        pretrained_model_name_or_path: str | Path,
        *,
        map_location: str | torch.device | None = "cpu",
        **hub_options: Any,
    ) -> Self:
        """Load a model from a folder or from the Hub, ready for use.

        Args:
            pretrained_model_name_or_path: A model folder, or a name on the Hub.
            map_location: The device to load it to; None means the CPU.
            hub_options: revision, token, cache_dir, force_download, local_files_only.

        Raises:
            UserError: The folder is missing or broken, or the Hub cannot be reached.
        """
        # Read the folder here: the mixin would not turn a broken config.json into a UserError.
        folder = pretrained.fetch(str(pretrained_model_name_or_path), **hub_options)
        # Tensors of inference mode could never be refined or trained.
        with torch.inference_mode(False), ordinary_tensors():
            return cls._from_pretrained(model_id=str(folder), map_location=map_location or "cpu")

    @classmethod
    def _from_pretrained(
        cls: type[Self], *, model_id: str, map_location: str | torch.device = "cpu", **_: Any
    ) -> Self:
        folder = Path(model_id)
        check_device(map_location)
        config = pretrained.read_config(folder)
        cls.check_class(folder)
        pretrained.check_names(config, cls._arguments(), cls.ESSENTIAL, folder / pretrained.CONFIG)
        model = cls._made(config)
        load_weights(model, folder / pretrained.WEIGHTS, map_location)
        model.to(map_location)  # buffers that are not saved
        model._load_more(folder)
        kind = config.get("condition", "none")
        count = config.get("num_labels", 0)
        model.condition = load_condition(kind, folder / pretrained.CONDITION, count)
        model.inference = Inference.load(folder / pretrained.INFERENCE)
        model.metrics = pretrained.read_metrics(folder)
        model.sampler = MixtureSampler.load(folder / pretrained.SAMPLER, model.latent_dim)
        return model.eval()
