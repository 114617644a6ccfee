"""A model folder: all that is needed to use a model, and nothing that runs code when it is read.

    config.json         the model's arguments, flat
    model.safetensors   its weights; a tensor that has two names (tied embeddings) stands there once
    tokenizer.json      the tokenizer, with tokenizer.model beside it for subwords
    inference.json      how q(z|x) is found, and refined where that is asked for
    README.md           the model card
    metrics/test.json   its scores, where it was evaluated

Every file is written beside its place and moved there, so a kill or a full disk leaves the old one
or the new one, never half of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model
from torch import Tensor, nn

from textvae.core.options import Inference, for_evaluation
from textvae.errors import UserError
from textvae.files import replace_file, write_json, write_text
from textvae.text.lstm import InitialState, Injection
from textvae.text.tokenizers import SPECIALS, Tokenizer, load_tokenizer

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
INFERENCE = "inference.json"
METRICS = Path("metrics") / "test.json"
HUB_PATTERNS = [CONFIG, WEIGHTS, INFERENCE, "tokenizer.*", METRICS.as_posix()]
_TOKENIZER = "tokenizer"  # of the weights' metadata: the fingerprint of the tokenizer
_CARD_MARK = "<!-- written by textvae: remove this line to keep your own text -->"
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
DEFAULT_INFERENCE = for_evaluation(Inference(), batch_size=32)
_SHARES = ("dropout_in", "dropout_out", "word_dropout")
_SCALES = ("init_scale", "init_embedding")
_FLAGS = ("bidirectional", "tie_embeddings", "output_bias", "head_bias")
_CHOICES = {"injection": get_args(Injection), "initial_state": get_args(InitialState)}
_SHOWN = ("ppl_elbo", "ppl_iw", "bits_per_byte_iw", "rec", "elbo", "iw", "kl", "mi", "au")


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
        demand(name, _is_number(value) and 0 <= value < 1, "a share from 0 to below 1")
    for name in _SCALES:
        value = config[name]
        demand(name, value is None or (_is_number(value) and value > 0), "a number above 0 or null")
    for name in _FLAGS:
        demand(name, isinstance(config[name], bool), "true or false")
    for name, choices in _CHOICES.items():
        demand(name, config[name] in choices, f"one of {', '.join(choices)}")
    fits = not config["tie_embeddings"] or config["embedding_dim"] == config["decoder_hidden"]
    demand("tie_embeddings", fits, "embedding_dim equal to decoder_hidden")


def save_weights(model: nn.Module, path: Path, tokenizer: Tokenizer | None = None) -> None:
    """Writes the weights alone, and whose ids they are made for.

    Raises:
        UserError: the file cannot be written; the old one is intact.
    """

    metadata = {} if tokenizer is None else {_TOKENIZER: tokenizer.fingerprint()}

    def write(temporary: Path) -> None:
        try:
            save_model(model, str(temporary), metadata)
            temporary.chmod(0o644)  # safetensors keeps it for the owner alone
        except SafetensorError as error:
            raise OSError(str(error)) from error

    replace_file(Path(path), write)


def load_weights(model: nn.Module, path: Path, device: str | torch.device = "cpu") -> None:
    """Reads the weights into ``model``, in place and in the model's own precision.

    Raises:
        UserError: the file is missing, truncated, or the weights of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no {path.name} in {path.parent}: is this a model folder?")
    state = model.state_dict(keep_vars=True)
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            # The storage would be the file's own pages: a file changed later must not change us.
            names = list(file.keys())
            stored = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is truncated or no safetensors file ({reason})") from None
    shared = {id(state[name]): tensor for name, tensor in stored.items() if name in state}
    for name, tensor in state.items():  # the second name of a tied weight
        if name not in stored and id(tensor) in shared:
            stored[name] = shared[id(tensor)]
    if why := _misfit(state, stored):
        raise UserError(f"{path} does not fit the {CONFIG} beside it: {why}")
    cast = {name: stored[name].to(state[name].dtype) for name in state}
    model.load_state_dict(cast, assign=True)


def _misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    if missing := [name for name in expected if name not in found]:
        return f"{missing[0]} is missing"
    if foreign := [name for name in found if name not in expected]:
        return f"{foreign[0]} is not part of this model"
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            return f"{name} is {tuple(found[name].shape)} where {tuple(tensor.shape)} is expected"
    return None


def read_config(folder: Path, known: set[str]) -> dict[str, Any]:
    """The model's arguments out of ``config.json``.

    Raises:
        UserError: the file is missing, is not JSON, or holds something that is no argument.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {CONFIG} in {folder}: is this a model folder?") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from None
    if not isinstance(config, dict) or "vocab_size" not in config:
        raise UserError(f"{path} does not describe a textvae model (no vocab_size)")
    if foreign := sorted(set(config) - known):
        raise UserError(f"{path}: this release of textvae does not know {foreign[0]!r}")
    return config


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes ``config.json``."""
    write_json(folder / CONFIG, config)


def write_inference(folder: Path, inference: Inference) -> None:
    """Writes ``inference.json``."""
    write_json(folder / INFERENCE, asdict(inference))


def read_inference(folder: Path) -> Inference:
    """How q(z|x) is found; the defaults for a model that was saved before this was written down.

    Raises:
        UserError: the file is broken, or another release's.
    """
    path = folder / INFERENCE
    if not path.exists():
        return DEFAULT_INFERENCE
    try:
        return Inference(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no file of this release of textvae: {error}") from None


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
    if _made_for(folder / WEIGHTS) not in (None, tokenizer.fingerprint()):
        raise UserError(
            f"the tokenizer in {folder} is not the one that its weights were trained with: "
            "they do not belong together"
        )
    return tokenizer


def _made_for(weights: Path) -> str | None:
    """The fingerprint of the weights' tokenizer; None where they are missing or do not tell."""
    try:
        with safe_open(str(weights), framework="pt") as file:
            return (file.metadata() or {}).get(_TOKENIZER)
    except (SafetensorError, OSError):
        return None


def fetch(name: str, **options: Any) -> Path:
    """The model folder: ``name`` itself where it is a folder, else its copy from the hub.

    Raises:
        UserError: there is no such folder, and none could be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_PATTERNS, **options))
    except Exception as error:  # the hub's client raises many unrelated types
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{name!r} is no folder here, and the Hugging Face hub did not give it: {reason}. "
            "Offline? Give the folder of a model"
        ) from error


def write_card(
    folder: Path, header: str, config: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Writes the model card; one that a person has written stays.

    Args:
        header: the hub's YAML block.
        metrics: shown where the folder has none of its own.
    """
    path = folder / CARD
    if path.exists() and _CARD_MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    text = model_card(header, config, read_metrics(folder) or metrics)
    write_text(path, text)


def read_metrics(folder: Path) -> dict[str, Any]:
    """The scores on the test split; nothing where it was not evaluated."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def model_card(header: str, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The text of README.md: what the model is, how good it is, how it is used."""
    rows = [f"| {key} | {metrics[key]:.4g} |" for key in _SHOWN if _is_number(metrics.get(key))]
    table = ["## Test split", "", "| metric | value |", "|---|---|", *rows, ""] if rows else []
    kind = (
        f"A text variational autoencoder: z has {config['latent_dim']} dimensions and enters the "
        f"LSTM decoder by `{config['injection']}`."
        if config["latent_dim"]
        else "An LSTM language model, the baseline without a latent variable."
    )
    uses = ["model.sample(5)", 'model.reconstruct(["a sentence"])', 'model.encode(["a sentence"])']
    uses = uses if config["latent_dim"] else uses[:1]
    use = [
        "```python",
        "from textvae import TextVAE",
        "",
        'model = TextVAE.from_pretrained("this folder, or its name on the hub")',
        *uses,
        "```",
    ]
    arguments = [f"| {key} | {value} |" for key, value in config.items()]
    arguments = ["## Arguments", "", "| argument | value |", "|---|---|", *arguments, ""]
    title = [_CARD_MARK, "", "# textvae model", "", kind, ""]
    return "\n".join([header.strip(), "", *title, *table, "## Use", "", *use, "", *arguments])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
