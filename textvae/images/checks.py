"""Which arguments an ``ImageVAE`` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textvae.errors import UserError

ENCODERS = ("resnet", "mlp")
# What each decoder does with each way for z to enter; the others are refused with the reason.
INJECTIONS = {"pixelcnn": ("none", "input", "skip"), "mlp": ("input", "skip")}
REASONS = {
    "init": "fills an initial state, and only a recurrent decoder has one",
    "none": "leaves an MLP decoder without any input",
}
AT_LEAST = {
    "height": 1,
    "width": 1,
    "latent_dim": 0,
    "encoder_hidden": 1,
    "encoder_layers": 0,
    "decoder_hidden": 1,
    "decoder_layers": 1,
    "kernel_size": 1,
}


def check_arguments(config: Mapping[str, Any]) -> None:
    """Checks arguments of ``ImageVAE``, wherever they come from; the size may be missing yet.

    Raises:
        UserError: one is of a wrong type or out of range, or two do not go together.
    """
    for name, least in AT_LEAST.items():
        value = config.get(name, least)
        if type(value) is not int or value < least:
            raise UserError(
                f"model: {name}={value!r}, where a whole number from {least} on is needed"
            )
    if config["kernel_size"] % 2 == 0:
        raise UserError(f"model: kernel_size={config['kernel_size']}, where an odd one is needed")
    for name, choices in {"encoder": ENCODERS, "decoder": tuple(INJECTIONS)}.items():
        if config[name] not in choices:
            raise UserError(f"model: {name}={config[name]!r}, where one of {', '.join(choices)} is")
    _check_injection(config)
    side = min(config.get("height", 2**30), config.get("width", 2**30))
    if config["encoder"] == "resnet" and side >> config["encoder_layers"] == 0:
        raise UserError(
            f"model: encoder_layers={config['encoder_layers']} halves images of {side} pixels to "
            "nothing: give fewer"
        )


def _check_injection(config: Mapping[str, Any]) -> None:
    injection, decoder = config["injection"], config["decoder"]
    possible = INJECTIONS[decoder]
    if injection not in possible:
        reason = REASONS.get(injection, "is not known")
        raise UserError(
            f"model: injection={injection!r} {reason}: with the {decoder} decoder take "
            f"{' or '.join(possible)}"
        )
    if not config["latent_dim"] and injection != "none":
        remedy = "injection none" if "none" in possible else "the pixelcnn decoder"
        raise UserError(f"model: latent_dim=0 leaves no z for injection={injection!r}: {remedy}")
