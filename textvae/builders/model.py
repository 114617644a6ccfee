"""From a configuration to a model and its objective, and from a folder to a trained model."""

from __future__ import annotations

import logging
from copy import deepcopy
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textvae.builders.data import Splits
from textvae.config.combinations import check_combinations
from textvae.config.experiment import OF_ANY_MODEL, Config
from textvae.config.inference import AMORTIZED, Inference, for_evaluation
from textvae.errors import UserError
from textvae.images.datasets import ImageSplit
from textvae.images.model import ImageVAE
from textvae.images.model import check_arguments as check_images
from textvae.runs import model_folder as pretrained
from textvae.runs.model_folder import is_built_in
from textvae.runs.weights import load_some_weights
from textvae.text.decode.consistency import check_stepper
from textvae.text.model import TextVAE, check_arguments
from textvae.text.tokenizers import Tokenizer, check_options, chosen_kind, read_tokenizer
from textvae.text.tokenizers.vocabulary import TOKENIZER_FILE
from textvae.vae.batch import Batch, Split, check_device
from textvae.vae.conditioning import fit_condition
from textvae.vae.conditions import Classes, load_condition
from textvae.vae.contracts import Objective
from textvae.vae.model import Model
from textvae.vae.modes import undisturbed
from textvae.vae.objectives import (
    WithBagOfWords,
    WithDensityGap,
    WithMinimumKL,
    WithMMD,
    elbo,
    iwae,
)
from textvae.vae.posteriors import check_posterior, closed_kl
from textvae.vae.priors import WrongDensity, check_density

logger = logging.getLogger(__name__)
MOVED = 0.1  # standard deviation of what is added to the weights of a prior of the user's own
CHECKED = 4  # examples on which the parts of a user's decoder are compared


def check_model(config: Config) -> None:
    """Check the model's options before the data is read, which may take a while.

    Raises:
        UserError: An option is out of range.
    """
    if config.data.kind == "images":
        check_images(_image_options(config))
    else:
        options = vars(config.model) | {"max_length": config.data.max_length}
        tokenizer = config.tokenizer
        check_arguments(options | {"vocab_size": tokenizer.vocab_size})
        if tokenizer.path is None:
            kind = chosen_kind(tokenizer.kind, config.data.tokenized)
            check_options(kind, tokenizer.min_count, tokenizer.byte_fallback)
    check_combinations(config)


def build_model(
    config: Config, run: Path, splits: Splits, model_class: type[Any] | None = None
) -> Model:
    """Build a new model, with weights determined by ``train.seed``.

    Args:
        config: The experiment.
        run: The run folder, which contains the tokenizer if the data is text.
        splits: The data.
        model_class: A subclass of ``TextVAE`` or ``ImageVAE`` to use instead.

    Raises:
        UserError: An option does not fit the data or another option.
    """
    torch.manual_seed(config.train.seed)
    train = splits["train"]
    condition = fit_condition(config.model.condition, train)
    labels = {"num_labels": len(condition.names)} if isinstance(condition, Classes) else {}
    try:
        if isinstance(train, ImageSplit):
            kind: type[Any] = model_class or ImageVAE
            height, width = train.size
            model = kind(height=height, width=width, **labels, **_image_options(config))
        else:
            model = _text_model(config, read_tokenizer(run), labels, model_class or TextVAE)
    except ValueError as error:
        raise UserError(f"model: {error}") from error
    model.condition = condition
    model.inference = for_evaluation(config.inference, config.data.batch_size)
    return model


def check_own_parts(model: Model, split: Split, inference: Inference = AMORTIZED) -> None:
    """Check, before any training, that user-defined parts do what training and evaluation need.

    Args:
        model: The model.
        split: The training split, with its conditions.
        inference: How q(z|x) is found in training.

    Raises:
        UserError: A method of the prior or the posterior breaks its contract, or the decoder
            cannot take the model's condition or a share of the tokens, or its stepper and its
            ``log_prob`` differ.
    """
    _check_own_prior(model.prior)
    batch = split.batch(np.arange(min(CHECKED, len(split)))).to(model.device)
    if model.latent_dim and model.has_encoder:
        _check_own_posterior(model, batch)
    _check_own_decoder(model, batch, inference)


@torch.no_grad()
def _check_own_prior(prior: Any) -> None:
    if is_built_in(type(prior)) or not prior.latent_dim:
        return
    try:
        check_density(prior)
        _check_density_of_other_weights(prior)
    except ValueError as error:
        raise UserError(f"{type(prior).__name__}: {error}") from error


def _check_density_of_other_weights(prior: Any) -> None:
    """Check a copy whose weights have moved: a flow that begins as the identity hides mistakes.

    Raises:
        WrongDensity: The density is wrong.
    """
    try:
        moved, random = deepcopy(prior), torch.Generator().manual_seed(0)
        for weight in moved.parameters():
            weight.add_(MOVED * torch.randn(weight.shape, generator=random).to(weight))
        check_density(moved)
    except WrongDensity:
        raise
    except Exception:  # not every prior can be copied, or has a density for all weights
        return


def _check_own_posterior(model: Model, batch: Batch) -> None:
    with undisturbed(model):
        q = model.posterior(batch)
        if is_built_in(type(q)):
            return
        try:
            check_posterior(q, model.latent_dim)
            closed_kl(q, model.prior)
        except ValueError as error:
            raise UserError(f"{type(q).__name__}: {error}") from error


def _check_own_decoder(model: Model, batch: Batch, inference: Inference) -> None:
    decoder = model.decoder
    if is_built_in(type(decoder)):
        return
    name = type(decoder).__name__
    if inference.method != "amortized" and inference.token_share < 1:
        try:
            signature(decoder.log_prob).bind(batch, None, share=inference.token_share)
        except TypeError:
            raise UserError(
                f"--inference.token_share {inference.token_share:g}: the log_prob of {name} has no "
                "argument share, the fraction of the tokens to compute: set it to 1"
            ) from None
    if model.condition is not None and not hasattr(decoder, "with_condition"):
        raise UserError(
            f"the model is conditioned on a {model.condition.noun}, and {name} has no method "
            "with_condition, which generating needs: derive it from textvae.ConditionalDecoder"
        )
    if model.condition is not None and getattr(decoder, "condition", decoder) is None:
        raise UserError(
            f"the model is conditioned on a {model.condition.noun}, and {name} ignores it: pass "
            "condition=textvae.make_embedding(config) to its constructor"
        )
    with undisturbed(model), torch.no_grad():
        z = model.prior.sample(len(batch)).to(model.device)
        try:
            if model.KIND == "text" and hasattr(decoder, "stepper"):
                check_stepper(decoder, batch, z)
            else:
                model.log_likelihood(batch, z[None])
        except ValueError as error:
            raise UserError(f"{name}: {error}") from error


def build_objective(config: Config) -> Objective:
    """Build the loss that the config asks for."""
    options = config.objective
    per_dimension = options.free_bits > 0 and options.free_bits_per in ("element", "dim")
    if per_dimension and config.model.prior != "standard":
        logger.info(
            "--objective.free_bits_per %s: the KL to a learned prior is not a sum over dimensions, "
            "so the free bits are those of all of them together",
            options.free_bits_per,
        )
    objective: Objective
    match options.bound:
        case "elbo":
            objective = partial(elbo, free_nats=options.free_bits, per=options.free_bits_per)
        case "iwae":
            objective = iwae
        case _:
            raise ValueError(f"unknown bound {options.bound!r}")
    if options.mmd:
        objective = WithMMD(objective, options.mmd)
    if options.density_gap:
        objective = WithDensityGap(objective, options.density_gap)
    if options.bag_of_words:
        objective = WithBagOfWords(objective, options.bag_of_words)
    if options.min_kl:
        objective = WithMinimumKL(objective, options.min_kl)
    return objective


def load_model(
    name: str,
    *,
    device: str | torch.device | None = "cpu",
    model_class: type[Model] | None = None,
    **options: Any,
) -> Model:
    """Load a trained model of either kind from a folder or from the Hub.

    Args:
        name: A folder, or the name of a model on the Hugging Face Hub.
        device: Where to put it; None: on a GPU if there is one.
        model_class: The class of a model of your own, which no folder can name.
        options: For a model on the Hub, arguments of ``huggingface_hub.snapshot_download``.

    Raises:
        TypeError: There is no such argument.
        UserError: The folder is missing or broken, the Hub cannot be reached, or there is no such
            device.
    """
    folder = pretrained.fetch(name, **options)
    usual = ImageVAE if ImageVAE.ESSENTIAL in pretrained.read_config(folder) else TextVAE
    return to_device((model_class or usual).from_pretrained(folder), device)


def load_parts(model: Model, folder: Path, parts: str) -> None:
    """Start a model from the weights of a trained one.

    Args:
        model: The new model.
        folder: The folder of the trained one.
        parts: ``encoder``, ``decoder``, or ``all``.

    Raises:
        UserError: The weights do not fit the new model, or they belong to another tokenizer.
    """
    ours = getattr(model, "tokenizer", None)
    theirs = read_tokenizer(folder) if (folder / TOKENIZER_FILE).exists() else None
    if ours and theirs and ours.fingerprint() != theirs.fingerprint():
        raise UserError(
            f"--train.init {folder}: its tokenizer is not the one of --tokenizer.path, which can "
            "be left out"
        )
    kind = pretrained.read_config(folder).get("condition", "none")
    conditions = (load_condition(kind, folder / pretrained.CONDITION), model.condition)
    scales = [condition and condition.scale for condition in conditions]
    if scales[0] != scales[1]:
        raise UserError(
            f"--train.init {folder}: its --model.condition is {kind}, that of this run is "
            f"{model.config['condition']}, and both need the same labels, or numbers with the same "
            "mean and standard deviation"
        )
    names = ("encoder", "decoder", "prior") if parts == "all" else (parts,)
    if why := load_some_weights(model, folder, names):
        raise UserError(
            f"--train.init {folder}: its weights do not fit this model ({why}): use the model "
            "options of that run, or choose other --train.init_parts"
        )


def to_device(model: Model, device: str | torch.device | None = None) -> Model:
    """Move a model to a device; None: a GPU if there is one, else the CPU.

    Raises:
        UserError: There is no such device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    return model.to(device)


def _text_model(
    config: Config, tokenizer: Tokenizer, labels: dict[str, int], model_class: type[Any]
) -> Any:
    length = config.data.max_length - 1  # the end of the sentence is not counted there
    texts = {"max_length": length, "tokenized": config.data.tokenized}
    texts["bag_of_words"] = config.objective.bag_of_words > 0
    model = model_class(vocab_size=len(tokenizer), **texts, **labels, **vars(config.model))
    model.tokenizer = tokenizer
    return model


def _image_options(config: Config) -> dict[str, Any]:
    model = config.model
    own = {name: getattr(model, name) for name in OF_ANY_MODEL}
    return own | vars(config.images)
