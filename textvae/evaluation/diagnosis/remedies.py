"""What to do about a verdict: the methods in ``recipes/methods`` that fit a model and its config.

The order is that of the evidence: recipes/toy/REMEDIES.md (every method on one model, with the
plain decoder and with skip connections), docs/which-remedy.md, and recipes/ptb/RESULTS.md. Nothing
is suggested that the experiment already has, or that does not go together with its other options.
The reasons give no numbers: those of other data would say little about this model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from textvae.config.experiment import Config, options_read
from textvae.errors import quantity
from textvae.evaluation.diagnosis.judge import (
    COLLAPSED,
    HOLES,
    OVER_REFINED,
    PARTIAL,
    UNCLEAR,
    UNDER_TRAINED,
    UNREAD,
    Training,
    judge_use,
)
from textvae.evaluation.diagnosis.remedy import (
    METHODS,
    RUN,
    UNKNOWN,
    Case,
    Remedy,
    another_command,
    retrain,
)
from textvae.evaluation.metrics.metric import decimals
from textvae.evaluation.symptoms import Symptoms

MOST = 3
AUTOENCODE_SHARE = 3  # autoencoding takes at most a third of the other epochs
AUTOENCODE_EPOCHS = 5  # of the method file


def remedies_for(verdict: str, case: Case) -> tuple[Remedy, ...]:
    """Return up to three remedies, the best first.

    Args:
        verdict: What is wrong.
        case: The model. If it has a run folder, the remedies have commands.
    """
    candidates = _BY_VERDICT.get(verdict)
    return () if candidates is None else tuple(islice(candidates(case), MOST))


def warning(
    symptoms: Symptoms,
    config: Config | None = None,
    training: Training | None = None,
    *,
    own: bool = False,
) -> str | None:
    """Say that z is not used and what to try, for a metrics card; None if it is used.

    Args:
        symptoms: The metrics of the model.
        config: The experiment, if it is known.
        training: How far the training got, if that is known.
        own: Whether the model has user-defined parts.
    """
    findings = judge_use(symptoms, training)
    if not findings:
        return None
    verdict, summary, _ = findings[0]
    remedies = remedies_for(verdict, Case(config or UNKNOWN, own=own))
    if not remedies:
        return summary
    if config is None or own:
        return f"{summary}; try {remedies[0].title}"
    names = " + ".join(file.removeprefix(f"{METHODS}/") for file in remedies[0].files)
    where = f" ({METHODS})" if names else ""
    tried = " and ".join(part for part in (names + where, " ".join(remedies[0].options)) if part)
    return f"{summary}; try {tried}"


def _against_collapse(case: Case) -> Iterator[Remedy]:
    config = case.config
    model, objective = config.model, config.objective
    if objective.beta > 1:
        reason = f"a KL weight of {objective.beta:g} makes information in z expensive"
        yield retrain(case, [], reason, "--objective.beta", "1")
    yield from _first_choice(case)
    yield from _pooled_encoder(
        case, "the last state of an LSTM forgets most of a long text, and the mean does not"
    )
    if model.posterior == "vmf":
        reason = "the KL of a von Mises-Fisher posterior is a constant, which kappa sets"
        yield retrain(case, [], reason, "--model.kappa", f"{2 * model.kappa:g}")
    if model.injection != "skip" and objective.bound != "iwae":
        yield retrain(
            case,
            ["skip_vae", "iwae"],
            "if likelihood matters more than information: a tighter bound keeps a part of z alive, "
            "at about five times the cost",
            *(["--objective.free_bits", "0"] if objective.free_bits else []),
        )
    unrolled = config.inference.encoder == "unrolled"
    if model.injection == "skip" and _can_be_refined(config):
        yield retrain(
            case,
            ["skip_sa_vae"],
            "skip connections alone were not enough; refinement gives the decoder a z that is "
            "worth reading while the encoder still lags behind, at several times the cost",
            *([] if unrolled else ["--inference.encoder", "unrolled"]),
        )
    if not objective.min_kl and model.posterior != "vmf" and config.inference.encoder_has_objective:
        yield retrain(
            case,
            [*_skip(config), "mdr"],
            "if you want to choose the KL yourself: --objective.min_kl sets its minimum",
        )


def _skip(config: Config) -> list[str]:
    return [] if config.model.injection == "skip" else ["skip_vae"]


def _has_encoder(config: Config) -> bool:
    return config.inference.method != "svi"


def _can_normalize_means(config: Config) -> bool:
    several = config.data.batch_size > 1 or bool(config.data.max_tokens)
    return config.model.head == "linear" and _has_encoder(config) and several


def _can_be_refined(config: Config) -> bool:
    return config.inference.method == "amortized" and not config.data.max_tokens


def _first_choice(case: Case) -> Iterator[Remedy]:
    """Yield skip connections, autoencoding first, and free bits, as far as they are missing."""
    config = case.config
    objective, names, options, why = config.objective, _skip(config), [], []
    if names:
        why.append(
            "z enters every layer of the decoder: with z as an input only, most other remedies "
            "do not help"
        )
    if not config.train.autoencode_epochs and _has_encoder(config):
        names.append("autoencode")
        why.append("the encoder learns something useful before the KL is penalized")
        if config.train.epochs / AUTOENCODE_SHARE < AUTOENCODE_EPOCHS:
            epochs = max(1, round(config.train.epochs / AUTOENCODE_SHARE))
            options += ["--train.autoencode_epochs", str(epochs)]
    reached = config.inference.encoder_has_objective
    if not objective.free_bits and config.model.posterior != "vmf" and reached:
        names.append("free_bits")
        why.append(
            "the first nats of KL are free, so that it does not fall to 0; with fewer of them, the "
            "likelihood is better and there are fewer holes"
        )
        options += ["--objective.bound", "elbo"] if objective.bound == "iwae" else []
    if config.model.prior == "vamp":
        options += ["--model.prior", "standard"]
        options += ["--objective.free_bits", "0"] if objective.free_bits and not reached else []
        why.append("a VampPrior can collapse even with skip connections")
    if _autoencodes_by_sgd(config, names):
        options += ["--optim.autoencode_name", "adam"]
        why.append("with SGD, the encoder would learn nothing in these epochs")
    if not why and objective.free_bits and reached:
        options += ["--objective.free_bits", f"{2 * objective.free_bits:g}"]
        why.append(f"{objective.free_bits:g} free nats were not enough")
    if why:
        yield retrain(case, names, _sentences(why), *options)


def _pooled_encoder(case: Case, reason: str) -> Iterator[Remedy]:
    config = case.config
    is_lstm = not case.own and config is not UNKNOWN and "pooling" in options_read(config)["model"]
    if is_lstm and config.model.pooling == "last" and _has_encoder(config):
        yield retrain(case, [*_skip(config), "pooled"], reason)


def _autoencodes_by_sgd(config: Config, names: Sequence[str]) -> bool:
    """Return whether the encoder would learn by SGD in epochs of autoencoding, if there are any."""
    optim = config.optim
    autoencodes = bool(config.train.autoencode_epochs) or "autoencode" in names
    return autoencodes and (optim.autoencode_name or optim.encoder_name or optim.name) == "sgd"


def _sentences(reasons: Sequence[str]) -> str:
    """Join reasons as sentences; the first one follows a colon."""
    later = [f"{reason[0].upper()}{reason[1:]}" for reason in reasons[1:]]
    return ". ".join([reasons[0], *later])


def _against_partial_collapse(case: Case) -> Iterator[Remedy]:
    model, objective, skip = case.config.model, case.config.objective, _skip(case.config)
    reached = case.config.inference.encoder_has_objective
    if model.posterior != "vmf" and objective.bound == "elbo" and reached:
        if objective.free_bits and objective.free_bits_per == "element":
            reason = f"{objective.free_bits:g} free nats did not keep every dimension alive"
            yield retrain(
                case, skip, reason, "--objective.free_bits", f"{2 * objective.free_bits:g}"
            )
        else:
            yield retrain(
                case,
                [*skip, "free_bits"],
                "each dimension gets its share of the free nats, which it can use at no cost",
            )
    if _can_normalize_means(case.config) and model.posterior == "gaussian":
        yield retrain(
            case,
            [*skip, "batch_norm"],
            "normalized means bound the KL of every dimension from below",
        )
    size = max(2 if model.posterior == "vmf" else 1, case.alive)
    if size < model.latent_dim:
        alive = quantity(case.alive, "dimension")
        carry = "carries" if case.alive == 1 else "carry"
        reason = f"or keep the model small: {alive} {carry} all of the information"
        yield retrain(case, [], reason, "--model.latent_dim", str(size))


def _against_unread(case: Case) -> Iterator[Remedy]:
    model, objective, train = case.config.model, case.config.objective, case.config.train
    if model.injection != "skip":
        yield retrain(
            case,
            ["skip_vae"],
            "z enters every layer of the decoder, and not only its input",
        )
    epoch = None if case.training is None else case.training.epoch
    was_reset = train.autoencode_decoder == "reset" and (
        epoch is None or epoch > train.autoencode_epochs
    )
    if train.autoencode_epochs and was_reset:
        reason = "the decoder that had learned to read z was reset after autoencoding"
        yield retrain(case, [], reason, "--train.autoencode_decoder", "keep")
    for name in ("free_bits", "min_kl"):
        if given := getattr(objective, name):
            reason = (
                f"objective.{name} puts {given:g} nats of KL into z, more than the decoder reads"
            )
            yield retrain(case, [], reason, f"--objective.{name}", f"{given / 2:g}")
    if not train.autoencode_epochs and _has_encoder(case.config):
        reason = "without a KL, the decoder learns to read z before it has learned the language"
        yield retrain(case, ["autoencode"], reason, "--train.autoencode_decoder", "keep")
    if "word_dropout" in options_read(case.config)["model"] and not model.word_dropout:
        reason = "a decoder that does not see every previous word needs z; it costs likelihood"
        yield retrain(case, ["word_dropout"], reason)


def _against_holes(case: Case) -> Iterator[Remedy]:
    model, objective = case.config.model, case.config.objective
    if model.posterior != "vmf":  # whose z lies on a sphere, where no mixture of Gaussians does
        reason = "draw z from where the decoder was trained; the model is not retrained"
        if case.run is None:
            reason += " (textvae.fit_mixture, given draws from the posteriors)"
        moved = ["--data", case.data] if case.data else []
        yield another_command(case, reason, "sample", RUN, "--from", "aggregate", *moved)
    trains_encoder = case.config.inference.encoder_has_objective
    if not objective.beta and trains_encoder:
        reason = "no KL pulls q(z|x) to the prior (objective.beta 0); with one, it is closer"
        yield retrain(case, ["mmd"], reason)
    if _can_normalize_means(case.config):
        options = ["--model.posterior", "gaussian"] if model.posterior == "vmf" else []
        options += ["--objective.free_bits", "0"] if objective.free_bits else []
        yield retrain(
            case,
            ["batch_norm"],
            "normalized means keep the information, and leave fewer holes than free bits",
            *("--model.head_scale", "0.7", *options),
        )
    yield from _pooled_encoder(case, "an encoder that averages its states leaves fewer holes")
    if not objective.density_gap and model.posterior != "vmf" and trains_encoder:
        reason = "it pulls the posteriors toward the prior as a whole, not each of them"
        yield retrain(case, ["density_gap"], reason)
    if objective.free_bits:
        reason = f"{objective.free_bits:g} free nats let q(z|x) go where the prior has little mass"
        yield retrain(case, [], reason, "--objective.free_bits", f"{objective.free_bits / 2:g}")
    if model.prior == "standard" and model.posterior != "vmf":
        yield retrain(case, ["mixture_prior"], "a learned prior moves to where the posteriors are")


def _against_over_refinement(case: Case) -> Iterator[Remedy]:
    inference, best = case.config.inference, case.best_steps
    yield retrain(case, [], "shorter steps", "--inference.lr", f"{inference.lr / 3:.1g}")
    if best:
        reason = f"fewer steps: the ELBO is highest after {best}"
        yield retrain(case, [], reason, "--inference.steps", str(best))
    if inference.encoder == "unrolled" and not inference.max_growth:
        reason = "nothing limits the gradients through the steps"
        yield retrain(case, [], reason, "--inference.max_growth", "3")


def _against_under_training(case: Case) -> Iterator[Remedy]:
    training, train = case.training, case.config.train
    if training is not None and not training.finished:
        reason = "continue from the last checkpoint"
        moved = ["--data.dir", case.data] if case.data else []
        yield another_command(case, reason, "train", "--resume", RUN, *moved)
        return
    if training is not None and training.only_autoencoded:
        reason = "let the KL count after the epochs of autoencoding"
        yield retrain(case, [], reason, "--train.max_steps", "null")
        return
    reason = "the schedules of the KL weight and the learning rate stretch with the run"
    if training is not None and training.gain is not None:
        reason = f"the ELBO still gained {decimals(training.gain)} nats in the last epoch; {reason}"
    longer = ["--train.epochs", str(2 * train.epochs)]
    longer += ["--train.max_steps", str(2 * train.max_steps)] if train.max_steps else []
    yield retrain(case, [], reason, *longer)


def _against_few_examples(case: Case) -> Iterator[Remedy]:
    if case.larger_split is not None:
        reason = f"examine the {case.larger_split} split, which has more examples"
        place = case.examined or case.data
        options = ["--data", place] if place else []
        options += ["--baseline", case.baseline] if case.baseline else []
        yield another_command(case, reason, "diagnose", RUN, "--split", case.larger_split, *options)


_BY_VERDICT: dict[str, Callable[[Case], Iterator[Remedy]]] = {
    COLLAPSED: _against_collapse,
    OVER_REFINED: _against_over_refinement,
    UNREAD: _against_unread,
    PARTIAL: _against_partial_collapse,
    HOLES: _against_holes,
    UNDER_TRAINED: _against_under_training,
    UNCLEAR: _against_few_examples,
}
