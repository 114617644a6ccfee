"""What options can be chosen from, for the sections of a config and for the classes they build."""

from typing import Literal

Injection = Literal["none", "init", "input", "skip"]  # of z into an LSTM decoder
InitialState = Literal["hidden", "cell"]  # that z sets
Pooling = Literal["last", "mean", "max"]  # over the states of the encoder
InputNoise = Literal["none", "delete", "mask", "shuffle", "blank"]  # of the encoder
HeadKind = Literal["linear", "batch_norm", "du", "scale"]  # of the encoder
PosteriorKind = Literal["gaussian", "vmf"]
PriorKind = Literal["standard", "mixture", "vamp"]
ConditionKind = Literal["none", "label", "number"]
ImageInjection = Literal["none", "input", "skip"]
ImageEncoder = Literal["resnet", "mlp"]
ImageDecoder = Literal["pixelcnn", "mlp"]
Schedule = Literal["constant", "linear", "logistic", "cyclical"]  # of the KL weight
FreeBitsPer = Literal["element", "dim", "sample", "batch"]


def own_option(part: str) -> str:
    """Return the option of a command that names a part of the user's own."""
    return f"--own-{part.replace('_', '-')}"
