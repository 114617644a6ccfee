"""Options that are each in range, but do not fit together.

Every check raises a ``UserError`` that names both options and a way out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from os.path import realpath
from pathlib import Path

from textvae.config.experiment import OF_TEXT_FILES, OPTIONS, Config, options_read
from textvae.config.types import as_word
from textvae.errors import UserError
from textvae.runs.files import expanded
from textvae.runs.run_folder import started_in


def check_combinations(config: Config) -> None:
    """Check that inference, procedure, objective, and posterior fit each other and the model.

    Raises:
        UserError: An option does not fit another one.
    """
    check_inference(config)
    check_procedure(config)
    check_objective(config)
    check_posterior(config)


def check_inference(config: Config) -> None:
    """Check that the inference method fits the model.

    Raises:
        UserError: There is nothing to refine, or an encoder is missing or would not be trained.
    """
    section = config.encoder_section
    layers, latent = getattr(config, section).encoder_layers, config.model.latent_dim
    method = config.inference.method
    if method != "amortized" and not latent:
        raise UserError(
            f"--inference.method {method} needs a latent variable, but --model.latent_dim is 0"
        )
    per_batch = "batch" in (config.inference.loss_per, config.inference.clip_per)
    if method != "amortized" and per_batch and config.data.max_tokens:
        raise UserError(
            "--data.max_tokens makes batches of different sizes, on which refinement steps must "
            "not depend: use --inference.loss_per example, --inference.clip_per example, and a "
            "smaller --inference.lr"
        )
    if method == "svi" and layers:
        raise UserError(f"--inference.method svi has no encoder: set --{section}.encoder_layers 0")
    if method != "svi" and latent and not layers:
        raise UserError(
            f"--{section}.encoder_layers 0 means no encoder: set --inference.method svi, or use "
            "at least 1 layer"
        )


def check_procedure(config: Config) -> None:
    """Check that a procedure that trains the encoder separately has one, and is asked for.

    Raises:
        UserError: There is no encoder, or an option is for a procedure that is not chosen.
    """
    if config.optim.reload_best and config.train.keep == "last":
        raise UserError(
            "--optim.reload_best goes back to the best model, which --train.keep last does not "
            "keep: leave one of them out"
        )
    if config.optim.autoencode_name and not config.train.autoencode_epochs:
        raise UserError(
            "--optim.autoencode_name has no effect without --train.autoencode_epochs: leave it out"
        )
    if config.model.latent_dim and getattr(config, config.encoder_section).encoder_layers:
        return
    for option, asked in (
        ("train.procedure aggressive", config.train.procedure == "aggressive"),
        ("train.autoencode_epochs", config.train.autoencode_epochs > 0),
        ("optim.encoder_name", config.optim.encoder_name is not None),
    ):
        if asked:
            raise UserError(f"--{option} trains an encoder, but this model has none: leave it out")


def check_posterior(config: Config) -> None:
    """Check that the decoder gets z, and that the head and the posterior fit the training.

    Raises:
        UserError: An option does not fit another one.
    """
    model, data = config.model, config.data
    if not model.latent_dim:
        return
    if model.injection == "none":
        raise UserError(
            f"--model.injection none: z would never reach the decoder, but --model.latent_dim is "
            f"{model.latent_dim}; use --model.injection skip, or latent_dim 0 for a language model"
        )
    if model.head != "linear" and data.batch_size == 1 and not data.max_tokens:
        raise UserError(
            f"--model.head {model.head} normalizes over the batch, but --data.batch_size is 1: use "
            "larger batches"
        )
    if model.posterior == "vmf" and config.objective.density_gap:
        raise UserError(
            "--objective.density_gap compares single dimensions, but with --model.posterior vmf, z "
            "lies on a sphere: use --objective.mmd"
        )
    for name in ("free_bits", "min_kl"):
        if model.posterior == "vmf" and getattr(config.objective, name):
            raise UserError(
                f"--objective.{name} has no effect with --model.posterior vmf, whose KL is "
                f"constant: set --objective.{name} 0"
            )


def check_objective(config: Config) -> None:
    """Check that the parts of the objective fit each other, the model, and inference.

    Raises:
        UserError: An option does not fit another one.
    """
    options, model = config.objective, config.model
    if options.bound == "iwae" and options.free_bits:
        raise UserError(
            "--objective.free_bits has no effect with --objective.bound iwae, which does not have "
            "a separate KL: set --objective.free_bits 0"
        )
    if options.bag_of_words and config.data.kind == "images":
        raise UserError("--objective.bag_of_words predicts words: it does not apply to images")
    added = ("min_kl", "mmd", "density_gap", "bag_of_words")
    asked = [name for name in added if getattr(options, name)]
    if asked and not model.latent_dim:
        raise UserError(
            f"--objective.{asked[0]} needs a latent variable, but --model.latent_dim is 0"
        )
    # A language model may have them from a stack of methods, and a learned prior learns from them.
    if options.free_bits and model.latent_dim and model.prior == "standard":
        asked.append("free_bits")
    if asked and not config.inference.encoder_has_objective:
        raise UserError(
            f"--objective.{asked[0]} trains the encoder, which this kind of refinement excludes "
            "from the objective: use --inference.method amortized, or semi_amortized with "
            "--inference.encoder unrolled"
        )


# Options that only matter together with others: whether they do, and what they need.
NEEDS: dict[str, tuple[Callable[[Config], object], str]] = {
    "model.kappa": (lambda c: c.model.posterior == "vmf", "--model.posterior vmf"),
    "model.head_scale": (lambda c: c.model.head != "linear", "a --model.head other than linear"),
    "model.prior_components": (
        lambda c: c.model.prior != "standard",
        "a --model.prior other than standard",
    ),
    "model.condition_dim": (lambda c: c.model.condition == "label", "--model.condition label"),
    "model.encoder_noise_rate": (
        lambda c: c.model.encoder_noise != "none",
        "--model.encoder_noise",
    ),
    "model.pooling": (lambda c: c.model.encoder_layers, "an encoder"),
    "objective.beta": (
        lambda c: c.model.posterior != "vmf" or not c.objective.beta,
        "a posterior whose KL is not constant",
    ),
    "objective.free_bits": (lambda c: c.objective.beta, "an --objective.beta above 0"),
    "objective.free_bits_per": (lambda c: c.objective.free_bits, "--objective.free_bits"),
    "objective.kl_schedule": (
        lambda c: c.objective.beta or c.objective.kl_schedule == "constant",
        "an --objective.beta above 0",
    ),
    "objective.kl_ramp": (
        lambda c: c.objective.kl_schedule == "cyclical",
        "--objective.kl_schedule cyclical",
    ),
    "objective.bound": (lambda c: c.objective.samples > 1, "--objective.samples above 1"),
    "optim.momentum": (
        lambda c: "sgd" in (c.optim.name, c.optim.encoder_name, c.optim.autoencode_name),
        "an SGD optimizer",
    ),
    **{
        f"optim.{name}": (lambda c: c.optim.schedule == "plateau", "--optim.schedule plateau")
        for name in (
            *("lr_decay", "patience", "decay_from", "decay_every", "reload_best"),
            *("min_lr_share", "max_decays"),
        )
    },
    "optim.encoder_lr": (lambda c: c.optim.encoder_name, "--optim.encoder_name"),
    "optim.autoencode_lr": (lambda c: c.optim.autoencode_name, "--optim.autoencode_name"),
    "train.aggressive_patience": (
        lambda c: c.train.procedure == "aggressive",
        "--train.procedure aggressive",
    ),
    "train.autoencode_decoder": (
        lambda c: c.train.autoencode_epochs,
        "--train.autoencode_epochs",
    ),
    "train.init_parts": (lambda c: c.train.init, "--train.init"),
}


# What a language model does not read: the options of z, of its encoder, and of their objective.
_IN_SECTIONS: dict[str, tuple[str, ...]] = {
    "model": (
        *("latent_dim", "injection", "pooling", "head", "head_scale", "head_bias", "posterior"),
        *("kappa", "prior", "prior_components", "encoder_noise", "encoder_noise_rate"),
        *("encoder_hidden", "encoder_layers", "bidirectional", "initial_state"),
    ),
    "images": ("encoder", "encoder_hidden", "encoder_layers"),
    "objective": tuple(OPTIONS["objective"]),
    "inference": tuple(OPTIONS["inference"]),
    "optim": ("encoder_name", "encoder_lr", "autoencode_name", "autoencode_lr"),
    "train": ("procedure", "aggressive_patience", "autoencode_epochs", "autoencode_decoder"),
}
OF_LATENT = {f"{section}.{name}" for section, names in _IN_SECTIONS.items() for name in names}


def options_without_effect(config: Config) -> list[str]:
    """Return one line for each changed option in ``NEEDS`` without the one that it needs.

    They are not errors: the runs of a sweep may share options that only some of them use. Language
    models are left out, because options of a latent variable have no effect there anyway.
    """
    if not config.model.latent_dim:
        return []
    defaults, lines = Config(), []
    for option, (matters, needed) in NEEDS.items():
        section, name = option.split(".")
        value = getattr(getattr(config, section), name)
        if value != getattr(getattr(defaults, section), name) and not matters(config):
            lines.append(f"--{option} {value} has no effect without {needed}")
    return lines


# The options, by section, that a resumed run may change. Of the data: where its corpus is (the
# hashes of the splits say whether it is the same) and the batches; the others decide what an
# example is. Of the model: noise in training.
AT_THE_START = ("init_scale", "init_embedding", "init", "init_parts", "init_embeddings")
CHANGEABLE = {
    "data": ("dir", *OF_TEXT_FILES, "cache_dir", "batch_size", "max_tokens", "equal_length"),
    "tokenizer": (),
    "model": (
        *("dropout_in", "dropout_out", "word_dropout", "encoder_noise", "encoder_noise_rate"),
    ),
    "images": (),
    "train": tuple(name for name in OPTIONS["train"] if name not in ("seed", *AT_THE_START)),
}
WHY = {
    "data": "results before and after would not be comparable",
    "tokenizer": "results before and after would not be comparable",
    "model": "its weights belong to that model",
    "images": "its weights belong to that model",
    "train": "it drew its first weights and the order of its examples with that seed",
}


def check_resumed(before: Config, now: Config, run: Path) -> None:
    """Check that a resumed run keeps its tokens, its examples, and its model.

    Raises:
        UserError: An option that decides them has changed.
    """
    old, new, known = asdict(before), asdict(now), options_read(now)
    for section, changeable in CHANGEABLE.items():
        for name in known.get(section, ()):
            if name in changeable or _same(name, old[section][name], new[section][name], run):
                continue
            why = "it only takes effect when a run starts" if name in AT_THE_START else WHY[section]
            raise UserError(
                f"--{section}.{name} {as_word(new[section][name])}: {run} began with "
                f"{as_word(old[section][name])}, and {why}: leave it out, or start a new run"
            )
    weights = [bool(config.objective.bag_of_words) for config in (before, now)]
    if weights[0] != weights[1]:  # only its value may change
        raise UserError(
            f"--objective.bag_of_words {now.objective.bag_of_words:g}: {run} began "
            f"{'with' if weights[0] else 'without'} this layer of the model: leave it out, or "
            "start a new run"
        )


def changed_options(before: Config, now: Config) -> list[str]:
    """Return the options of a resumed run that decide how it goes on and have changed."""
    old, new = asdict(before), asdict(now)
    return [
        f"--{section}.{name}"
        for section, names in options_read(now).items()
        for name in names
        if section != "data" and old[section][name] != new[section][name]
    ]


def _same(name: str, old: object, new: object, run: Path) -> bool:
    """Return whether two values of an option are the same, or two names of the same folder."""
    if old == new or name != "path" or not (old and new):
        return old == new
    start = started_in(run) or Path()
    places = {realpath(place) for place in (start / expanded(str(old)), expanded(str(new)))}
    return len({place.removesuffix("/tokenizer.json") for place in places}) == 1
