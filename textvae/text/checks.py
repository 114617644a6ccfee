"""Which arguments a ``TextVAE`` takes, and which tokenizer belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from textvae.errors import UserError
from textvae.runs.model_folder import WEIGHTS, is_number, read_metadata
from textvae.text.nn.lstm import InitialState, Injection
from textvae.text.tokenizers import SPECIALS, Tokenizer, load_tokenizer

MADE_FOR = "tokenizer"  # of the weights' metadata: the fingerprint of the tokenizer
_AT_LEAST = {
    "vocab_size": len(SPECIALS) + 1,
    "latent_dim": 0,
    "embedding_dim": 1,
    "encoder_hidden": 1,
    "encoder_layers": 0,
    "decoder_hidden": 1,
    "decoder_layers": 1,
    "max_length": 1,
}
_SHARES = ("dropout_in", "dropout_out", "word_dropout")
_SCALES = ("init_scale", "init_embedding")
_FLAGS = ("bidirectional", "tie_embeddings", "output_bias", "head_bias")
_CHOICES = {"injection": get_args(Injection), "initial_state": get_args(InitialState)}


def check_arguments(config: Mapping[str, Any]) -> None:
    """Checks all arguments of ``TextVAE``, wherever they come from.

    Raises:
        UserError: one is of a wrong type or out of range.
    """

    def demand(name: str, holds: bool, what: str) -> None:
        if not holds:
            raise UserError(f"model: {name}={config[name]!r}, where {what} is needed")

    for name, least in _AT_LEAST.items():
        value = config[name]
        demand(name, type(value) is int and value >= least, f"a whole number from {least} on")
    for name in _SHARES:
        value = config[name]
        demand(name, is_number(value) and 0 <= value < 1, "a share from 0 to below 1")
    for name in _SCALES:
        value = config[name]
        demand(name, value is None or (is_number(value) and value > 0), "a number above 0 or null")
    for name in _FLAGS:
        demand(name, isinstance(config[name], bool), "true or false")
    for name, choices in _CHOICES.items():
        demand(name, config[name] in choices, f"one of {', '.join(choices)}")
    fits = not config["tie_embeddings"] or config["embedding_dim"] == config["decoder_hidden"]
    demand("tie_embeddings", fits, "embedding_dim equal to decoder_hidden")


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a model folder; ``vocab_size`` is the model's, where it is read already.

    Raises:
        UserError: it is missing, damaged, or not the one that the weights beside it go with.
    """
    tokenizer = load_tokenizer(folder)
    if vocab_size not in (None, len(tokenizer)):
        raise UserError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, the model {vocab_size}: "
            "they do not belong together"
        )
    own = tokenizer.fingerprint()
    if read_metadata(folder / WEIGHTS).get(MADE_FOR, own) != own:
        raise UserError(
            f"the tokenizer in {folder} is not the one that its weights were trained with: "
            "they do not belong together"
        )
    return tokenizer
