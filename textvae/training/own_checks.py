"""What user-defined models, objectives, and the like need, checked before any training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from textvae.builders.own_code import check_function, what_failed
from textvae.builders.own_names import PLAIN
from textvae.config.experiment import ObjectiveConfig
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.vae.batch import Batch
from textvae.vae.model import Model
from textvae.vae.modes import undisturbed

logger = logging.getLogger(__name__)
ADAPTIVE = ("after_update", "state_dict", "load_state_dict")
NEEDED = ("update", "state_dict", "load_state_dict")


def check_objective(objective: Any) -> None:
    """Check that an objective has all methods of its contract, before any training.

    Raises:
        TypeError: A method is missing, which training would call late or never, or the objective
            has parameters, which it would not train.
    """
    check_function(objective, "an objective", "(terms, beta)", (None, 1.0))
    if isinstance(objective, nn.Module) and any(p.requires_grad for p in objective.parameters()):
        raise TypeError(
            "the objective has parameters, and only those of the model are trained: make them part "
            "of the model, or turn them off with requires_grad_(False)"
        )
    missing = [name for name in ADAPTIVE if not hasattr(objective, name)]
    if missing and hasattr(objective, "after_update"):
        raise TypeError(f"an objective with after_update also needs {' and '.join(missing)}")
    if hasattr(objective, "after_update"):
        _check_kept(objective.state_dict(), "the objective's state_dict()")


def check_kl_schedule(schedule: Any) -> None:
    """Check that a KL schedule can be called; ``Phases`` tries it at every step.

    Raises:
        TypeError: It is not a function of a step and of the number of steps.
    """
    check_function(schedule, "a KL schedule", "(step, steps)", (0, 1))


def check_loss(loss: Any, trains_encoder: bool) -> None:
    """Check what an objective returned.

    Args:
        loss: What it returned.
        trains_encoder: Whether another loss trains the encoder.

    Raises:
        TypeError: It is not a tensor.
        ValueError: It is not a scalar, or it was detached from the model.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"the objective returned a {type(loss).__name__}, not a tensor")
    if not loss.is_floating_point():
        raise ValueError(f"the objective returned a tensor of {loss.dtype}, not of real numbers")
    if loss.dim():
        raise ValueError(
            f"the objective returned a tensor of shape {tuple(loss.shape)}, not a scalar: the mean "
            "over the examples of the batch"
        )
    if not (loss.requires_grad or trains_encoder):
        raise ValueError("the objective's loss does not depend on the weights: was it detached?")


def check_objective_on(
    model: Model,
    batch: Batch,
    objective: Any,
    name: str,
    options: ObjectiveConfig,
    inference: Inference,
    *,
    autoencodes: bool,
) -> None:
    """Check on a batch, before any training, that what an objective returns is a loss.

    Args:
        model: The new model.
        batch: Some examples.
        objective: The objective.
        name: Its name, for the message.
        options: The options of the section ``objective``.
        inference: How q(z|x) is found.
        autoencodes: Whether training starts with a phase in which beta is 0.

    Raises:
        UserError: It is not.
    """
    try:
        tried = deepcopy(objective)  # it may count its calls; functions are not copied
    except Exception:  # it holds what cannot be copied, such as an open file
        return
    with undisturbed(model):
        terms = model(batch.to(model.device), options.samples, 1.0, inference)
        refined, terms = terms.encoder_loss is not None, terms._replace(encoder_loss=None)
        try:
            loss = tried(terms, 1.0)
            without_kl = tried(terms, 0.0) if autoencodes and model.latent_dim else None
        except Exception as error:  # anything can go wrong in the user's code
            raise UserError(f"{name}: {what_failed(error)}") from error
        try:
            check_loss(loss, trains_encoder=refined)
            _check_first_loss(loss, model)
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}: {error}") from error
        if without_kl is not None and torch.equal(loss, without_kl):
            logger.warning(
                "%s ignores beta, which is 0 during --train.autoencode_epochs: that phase is then "
                "no different from the rest of the training",
                name,
            )


def _check_first_loss(loss: Tensor, model: Model) -> None:
    """Check the loss of a model that has not been trained.

    Raises:
        ValueError: It is not finite, or does not depend on the weights.
    """
    if not loss.isfinite():
        raise ValueError(f"the first loss is {float(loss.detach())}")
    weights = [p for p in model.parameters() if p.requires_grad]
    if loss.requires_grad:
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        if all(gradient is None for gradient in found):
            raise ValueError("the objective's loss does not depend on the weights")


def check_procedure(procedure: Any) -> None:
    """Check that a procedure has all methods of its contract, before any training.

    Raises:
        TypeError: A method is missing, or a checkpoint cannot hold the state.
    """
    if isinstance(procedure, type):
        raise TypeError(f"procedure={procedure.__name__}: pass an object, {procedure.__name__}()")
    if missing := [name for name in NEEDED if not hasattr(procedure, name)]:
        raise TypeError(f"the procedure has no {', no '.join(missing)}")
    _check_kept(procedure.state_dict(), "the procedure's state_dict()")


def _check_kept(value: Any, where: str) -> None:
    """Check that a checkpoint can hold a value: it is read without executing anything."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_kept(entry, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for entry in value:
            _check_kept(entry, where)
    elif not isinstance(value, Tensor) and type(value) not in PLAIN:
        raise TypeError(
            f"{where} has the type {type(value).__name__}, which a checkpoint cannot hold: use "
            "tensors, Python numbers, strings, lists, and dicts"
        )


def check_model_class(model_class: Any) -> None:
    """Check that a class of the user's own is one of ours with other parts.

    Args:
        model_class: The class, or a ``functools.partial`` of it.

    Raises:
        TypeError: It is an object, or another class.
    """
    while isinstance(model_class, partial) and not model_class.args:
        model_class = model_class.func
    if not (isinstance(model_class, type) and issubclass(model_class, Model)):
        raise TypeError(
            f"model_class={getattr(model_class, '__name__', repr(model_class)):.60}: pass a "
            "subclass of one of textvae's models"
        )
