"""What to do about a verdict: the methods in ``recipes/methods`` that fit a model and its config.

The order is that of the evidence: recipes/toy/REMEDIES.md (every method on one model, with the
plain decoder and with skip connections), docs/which-remedy.md, and recipes/ptb/RESULTS.md. Nothing
is suggested that the experiment already has, or that does not go together with its other options.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from textvae.config.experiment import Config, ModelConfig, OptimConfig, options_read
from textvae.evaluation.judge import (
    COLLAPSED,
    HOLES,
    OVER_REFINED,
    PARTIAL,
    UNCLEAR,
    UNDER_TRAINED,
    UNREAD,
    Training,
    judge,
)
from textvae.evaluation.metrics import decimals
from textvae.evaluation.symptoms import Symptoms

MOST = 3
METHODS, RUN = "recipes/methods", "RUN"
# A model of which nothing is known is assumed to have no remedy yet.
UNKNOWN = Config(model=ModelConfig(injection="input"), optim=OptimConfig(name="adam", lr=0.001))


@dataclass(frozen=True)
class Remedy:
    """Something to try.

    Attributes:
        files: Method files to add to the configuration, such as ``recipes/methods/skip_vae.yaml``.
        options: Options to add on the command line.
        reason: Why it fits this model.
        command: The whole command; None for a model without a run folder.
    """

    files: tuple[str, ...]
    options: tuple[str, ...]
    reason: str
    command: str | None = None


class Case(NamedTuple):
    """What remedies are chosen by."""

    config: Config
    training: Training | None = None
    alive: int = 1  # dimensions that are not dead
    best_steps: int | None = None  # refinement steps with the highest ELBO
    larger_split: str | None = None  # a split with more examples
    run: Path | None = None
    data: str | None = None  # where the data is, if it has moved


def warning(symptoms: Symptoms, config: Config | None = None) -> str | None:
    """Say that z is not used and what to try, for a metrics card; None if it is used.

    Args:
        symptoms: The figures of the model.
        config: The experiment, if it is known.
    """
    worst = judge(symptoms)[0]
    if worst.verdict not in (COLLAPSED, UNREAD):
        return None
    first = next(remedies_for(worst.verdict, Case(config or UNKNOWN)), None)
    if first is None:
        return worst.summary
    names = [Path(file).name for file in first.files]
    tried = " and ".join(part for part in (", ".join(names), " ".join(first.options)) if part)
    return f"{worst.summary}; try {tried} ({METHODS})" if names else f"{worst.summary}; try {tried}"


def remedies_for(verdict: str, case: Case) -> Iterator[Remedy]:
    """Yield remedies, the best first; with commands if the case has a run folder."""
    yield from _CANDIDATES.get(verdict, lambda _: iter(()))(case)


def _remedy(case: Case, names: Sequence[str], reason: str, *options: str) -> Remedy:
    """Train the same model again, with method files and options added."""
    files, command = tuple(f"{METHODS}/{name}.yaml" for name in names), None
    if case.run is not None:
        words = ["textvae", "train", "--config", str(case.run / "config.yaml")]
        for file in files:
            words += ["--config", _path(file)]
        words += ["--out", f"{case.run}-{'-'.join(names or ['again'])}"]
        words += ["--data.dir", str(case.data)] if case.data else []
        command = shlex.join([*words, *options])
    return Remedy(files, options, reason, command)


def _path(file: str) -> str:
    """Return the path of a method file: from here, or in the checkout of this package."""
    checkout = Path(__file__).parents[2] / file
    return str(checkout) if checkout.exists() and not Path(file).exists() else file


def _without_training(case: Case, reason: str, *words: str) -> Remedy:
    """Use another command with the same run."""
    if case.run is None:
        return Remedy((), (), reason)
    named = [str(case.run) if word == RUN else word for word in words]
    named += ["--data", str(case.data)] if case.data else []
    return Remedy((), (), reason, shlex.join(["textvae", *named]))


def _for_collapse(case: Case) -> Iterator[Remedy]:
    model, objective, inference = case.config.model, case.config.objective, case.config.inference
    skip = [] if model.injection == "skip" else ["skip_vae"]
    if objective.beta > 1:
        yield _remedy(
            case,
            [],
            f"a KL weight of {objective.beta:g} makes information in z expensive",
            "--objective.beta",
            "1",
        )
    yield from _everything_at_once(case)
    if model.posterior == "vmf":
        yield _remedy(
            case,
            [],
            "the KL of a von Mises-Fisher posterior is constant, and kappa sets it",
            "--model.kappa",
            f"{2 * model.kappa:g}",
        )
    if skip and objective.bound != "iwae":
        yield _remedy(
            case,
            ["skip_vae", "iwae"],
            "if likelihood matters more than information: on the generated corpus, second in "
            "perplexity, with 1.9 nats of MI, at about five times the cost",
            *(["--objective.free_bits", "0"] if objective.free_bits else []),
        )
    if not skip and inference.method == "amortised" and not case.config.data.max_tokens:
        yield _remedy(
            case,
            ["skip_sa_vae"],
            "skip connections alone were not enough here; on Penn Treebank, where they were not "
            "either, refinement raised the MI from 0.0 to 4.6 nats, at several times the cost",
        )
    if not objective.min_kl and model.posterior != "vmf" and _trains_encoder_jointly(case.config):
        yield _remedy(
            case,
            [*skip, "mdr"],
            "if you want to choose the KL yourself (--objective.min_kl): on the generated corpus, "
            "3.8 nats of MI at a KL of 5 with skip connections",
        )


def _trains_encoder_jointly(config: Config) -> bool:
    inference = config.inference
    return inference.method == "amortised" or (
        inference.method == "semi_amortised" and inference.encoder == "unrolled"
    )


def _everything_at_once(case: Case) -> Iterator[Remedy]:
    """Yield skip connections, autoencoding first, and free bits, as far as they are missing."""
    config = case.config
    model, objective, optim = config.model, config.objective, config.optim
    names, options, why = [], [], []
    if model.injection != "skip":
        names.append("skip_vae")
        why.append(
            "z enters the decoder only in one place (model.injection "
            f"{model.injection}), where most remedies end with an MI of 0.00 nats"
        )
    if not config.train.autoencode_epochs and config.inference.method != "svi":
        names.append("autoencode")
        why.append("the encoder has to pay for its KL before it has learned anything")
    if not objective.free_bits and model.posterior != "vmf":
        names.append("free_bits")
        why.append("nothing keeps the KL from falling to 0")
        if objective.bound == "iwae":
            options += ["--objective.bound", "elbo"]
    if model.prior == "vamp":
        options += ["--model.prior", "standard"]
        why.append("a VampPrior was the only method that collapsed even with skip connections")
    if optim.name == "sgd":
        options += ["--optim.name", "adam", "--optim.lr", "0.002"]
        why.append(
            "with SGD, the encoder learns too slowly: on Penn Treebank, its MI was 0.00 nats after "
            "three epochs, and with Adam 5.5 after a quarter of one"
        )
    if not names and not options and objective.free_bits:
        options += ["--objective.free_bits", f"{2 * objective.free_bits:g}"]
        why.append(f"{objective.free_bits:g} free nats were not enough")
    if why:
        yield _remedy(case, names, "; ".join(why), *options)


def _for_partial_collapse(case: Case) -> Iterator[Remedy]:
    model, objective = case.config.model, case.config.objective
    skip = [] if model.injection == "skip" else ["skip_vae"]
    if model.posterior != "vmf" and objective.bound == "elbo":
        if not objective.free_bits or objective.free_bits_per != "element":
            yield _remedy(
                [*skip, "free_bits"],
                "free bits of every dimension leave none of them without a KL: all 16 dimensions "
                "were active on the generated corpus",
            )
        else:
            yield _remedy(
                case,
                skip,
                f"{objective.free_bits:g} free nats do not reach every dimension",
                "--objective.free_bits",
                f"{2 * objective.free_bits:g}",
            )
    if model.head == "linear" and model.posterior == "gaussian":
        yield _remedy(
            case,
            [*skip, "batch_norm"],
            "normalized means bound the KL of every dimension from below: all 16 dimensions were "
            "active on the generated corpus, with either decoder",
        )
    yield _remedy(
        case,
        [],
        f"or z does not need more: {case.alive} dimensions carry all of it",
        "--model.latent_dim",
        str(max(1, case.alive)),
    )


def _for_unread(case: Case) -> Iterator[Remedy]:
    model, objective, train = case.config.model, case.config.objective, case.config.train
    known = options_read(case.config)["model"]
    if model.injection != "skip":
        yield _remedy(
            case,
            ["skip_vae"],
            f"z enters the decoder only in one place (model.injection {model.injection}); with "
            "skip connections, replacing z cost more than the MI on the generated corpus, under "
            "every method that kept an MI",
        )
    if train.autoencode_epochs and train.autoencode_decoder == "reset":
        yield _remedy(
            case,
            [],
            "the decoder that had learned to read z was thrown away after autoencoding",
            "--train.autoencode_decoder",
            "keep",
        )
    for name in ("free_bits", "min_kl"):
        if given := getattr(objective, name):
            yield _remedy(
                case,
                [],
                f"{given:g} nats of KL are forced on z, more than the decoder reads",
                f"--objective.{name}",
                f"{given / 2:g}",
            )
    if not train.autoencode_epochs and case.config.inference.method != "svi":
        yield _remedy(
            case,
            ["autoencode"],
            "without the KL, the decoder learns to read z first",
            "--train.autoencode_decoder",
            "keep",
        )
    if "word_dropout" in known and not model.word_dropout:
        yield _remedy(
            case,
            ["word_dropout"],
            "a decoder that does not see all previous words has to read z; this costs likelihood",
        )


def _for_holes(case: Case) -> Iterator[Remedy]:
    model, objective = case.config.model, case.config.objective
    if model.posterior != "vmf":
        yield _without_training(
            case,
            "draw z from where the decoder was trained, without training again",
            *("sample", RUN, "--from", "aggregate"),
        )
    if not objective.beta:
        yield _remedy(
            case, ["mmd"], "nothing but the MMD pulls q(z|x) to the prior (objective.beta 0)"
        )
    if model.head == "linear":
        options = ["--model.posterior", "gaussian"] if model.posterior == "vmf" else []
        options += ["--objective.free_bits", "0"] if objective.free_bits else []
        yield _remedy(
            case,
            ["scale"],
            "as much information without holes: on the generated corpus, 5.4 nats of MI and 0 % of "
            "the draws in holes, compared with 5.6 nats and 65 % with free bits",
            *options,
        )
    if objective.free_bits:
        yield _remedy(
            case,
            [],
            f"{objective.free_bits:g} free nats let q(z|x) go where the prior has no mass",
            "--objective.free_bits",
            f"{objective.free_bits / 2:g}",
        )
    if model.prior == "standard" and model.posterior != "vmf":
        yield _remedy(case, ["mixture_prior"], "a learned prior moves to where the posteriors are")


def _for_over_refinement(case: Case) -> Iterator[Remedy]:
    inference, best = case.config.inference, case.best_steps
    yield _remedy(case, [], "its steps are too long", "--inference.lr", f"{inference.lr / 3:.1g}")
    if best:
        yield _remedy(
            case, [], f"the ELBO is highest after {best} steps", "--inference.steps", str(best)
        )
    if inference.encoder == "unrolled" and not inference.max_growth:
        yield _remedy(
            case,
            [],
            "the gradients through the steps grow without limit",
            "--inference.max_growth",
            "3",
        )


def _for_under_training(case: Case) -> Iterator[Remedy]:
    epochs = case.config.train.epochs
    training = case.training
    if training is not None and not training.finished:
        reason = "the run continues from its last checkpoint"
        yield _without_training(case, reason, "train", "--resume", RUN)
        return
    gain = (
        ""
        if training is None or training.gain is None
        else (f" by {decimals(training.gain)} nats per epoch")
    )
    yield _remedy(
        case,
        [],
        f"the ELBO was still rising{gain}; the schedules stretch with the run",
        "--train.epochs",
        str(2 * epochs),
    )


def _for_few_examples(case: Case) -> Iterator[Remedy]:
    if case.larger_split:
        reason = f"the {case.larger_split} split has more examples"
        yield _without_training(case, reason, "diagnose", RUN, "--split", case.larger_split)


_CANDIDATES: dict[str, Callable[[Case], Iterator[Remedy]]] = {
    COLLAPSED: _for_collapse,
    PARTIAL: _for_partial_collapse,
    UNREAD: _for_unread,
    HOLES: _for_holes,
    OVER_REFINED: _for_over_refinement,
    UNDER_TRAINED: _for_under_training,
    UNCLEAR: _for_few_examples,
}
