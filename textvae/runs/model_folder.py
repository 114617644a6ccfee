"""A model folder: all that is needed to use a model, and nothing that runs code when it is read.

    config.json         the model's arguments, flat
    model.safetensors   its weights; a tensor that has two names (tied embeddings) stands there once
    tokenizer.json      of text: the tokenizer, with tokenizer.model beside it for subwords
    inference.json      how q(z|x) is found, and refined where that is asked for
    README.md           the model card
    metrics/test.json   its scores, where it was evaluated

Every file is written beside its place and moved there, so a kill or a full disk leaves the old one
or the new one, never half of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model
from torch import Tensor, nn

from textvae.config.inference import Inference, for_evaluation, from_record
from textvae.errors import UserError
from textvae.runs.files import replace_file, write_json, write_text

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
INFERENCE = "inference.json"
METRICS = Path("metrics") / "test.json"
HUB_PATTERNS = [CONFIG, WEIGHTS, INFERENCE, "tokenizer.*", METRICS.as_posix()]
_CARD_MARK = "<!-- written by textvae: remove this line to keep your own text -->"
DEFAULT_INFERENCE = for_evaluation(Inference(), batch_size=32)
_SHOWN = ("ppl_elbo", "ppl_iw", "bits_per_byte_iw", "rec", "elbo", "iw", "kl", "mi", "au")


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes the weights alone, and what is said beside them.

    Raises:
        UserError: the file cannot be written; the old one is intact.
    """

    def write(temporary: Path) -> None:
        try:
            save_model(model, str(temporary), dict(metadata or {}))
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


def read_metadata(path: Path) -> dict[str, str]:
    """What is said beside the weights; nothing where they are missing or broken."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    if missing := [name for name in expected if name not in found]:
        return f"{missing[0]} is missing"
    if foreign := [name for name in found if name not in expected]:
        return f"{foreign[0]} is not part of this model"
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            return f"{name} is {tuple(found[name].shape)} where {tuple(tensor.shape)} is expected"
    return None


def read_config(folder: Path) -> dict[str, Any]:
    """The model's arguments out of ``config.json``.

    Raises:
        UserError: the file is missing or is not JSON.
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
    if not isinstance(config, dict):
        raise UserError(f"{path} does not describe a textvae model")
    return config


def check_names(config: Mapping[str, Any], known: set[str], essential: str, path: Path) -> None:
    """Checks that ``config`` describes a model with ``known`` arguments, ``essential`` among them.

    Raises:
        UserError: it does not.
    """
    if essential not in config:
        raise UserError(f"{path} does not describe a textvae model (no {essential})")
    if foreign := sorted(set(config) - known):
        raise UserError(f"{path}: this release of textvae does not know {foreign[0]!r}")


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
        return from_record(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no file of this release of textvae: {error}") from None


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


class Description(NamedTuple):
    """A model in words, for its card."""

    title: str
    kind: str  # a sentence
    name: str  # of the class
    uses: Sequence[str]  # lines of Python


def write_card(
    folder: Path,
    header: str,
    description: Description,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Writes the model card; one that a person has written stays.

    Args:
        header: the hub's YAML block.
        metrics: shown where the folder has none of its own.
    """
    path = folder / CARD
    if path.exists() and _CARD_MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    text = model_card(header, description, config, read_metrics(folder) or metrics)
    write_text(path, text)


def read_metrics(folder: Path) -> dict[str, Any]:
    """The scores on the test split; nothing where it was not evaluated."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def model_card(
    header: str, description: Description, config: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    """The text of README.md: what the model is, how good it is, how it is used."""
    rows = [f"| {key} | {metrics[key]:.4g} |" for key in _SHOWN if is_number(metrics.get(key))]
    table = ["## Test split", "", "| metric | value |", "|---|---|", *rows, ""] if rows else []
    name = description.name
    use = [
        "```python",
        f"from textvae import {name}",
        "",
        f'model = {name}.from_pretrained("this folder, or its name on the hub")',
        *description.uses,
        "```",
    ]
    arguments = [f"| {key} | {value} |" for key, value in config.items()]
    arguments = ["## Arguments", "", "| argument | value |", "|---|---|", *arguments, ""]
    title = [_CARD_MARK, "", f"# {description.title}", "", description.kind, ""]
    return "\n".join([header.strip(), "", *title, *table, "## Use", "", *use, "", *arguments])


def is_number(value: Any) -> bool:
    """Whether it is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
