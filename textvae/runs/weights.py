"""The weights of a model as safetensors, with strings about them in the same file.

A tensor with two names (tied embeddings) is stored once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from textvae.errors import UserError, first_line
from textvae.runs.files import replace_file
from textvae.runs.model_folder import CONFIG, WEIGHTS, written_by

ABOUT = "textvae"  # key of the strings stored with the weights, as JSON
LARGEST = 1e9  # larger weights come from damaged files, and their products are not finite


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights of a model.

    Args:
        model: The model.
        path: The file.
        metadata: Strings to store in the same file.

    Raises:
        UserError: The file cannot be written; the old one is intact.
    """
    # One entry, and each tensor under one name: safetensors orders several entries at random, and
    # equal models are to be equal files.
    about = {ABOUT: json.dumps(dict(metadata or {}), sort_keys=True)}
    tensors: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        tensors.setdefault(id(tensor), (name, tensor.detach().contiguous()))

    def write(temporary: Path) -> None:
        mode = temporary.stat().st_mode
        save_file(dict(tensors.values()), str(temporary), about)
        temporary.chmod(mode)  # safetensors makes it readable only by its owner

    replace_file(Path(path), write)


def load_weights(model: nn.Module, path: Path, device: str | torch.device = "cpu") -> None:
    """Read the weights into a model, in place and in the precision of the model.

    Args:
        model: The model.
        path: The file that ``save_weights`` wrote.
        device: Where to put the weights.

    Raises:
        UserError: The file is missing or damaged, or holds the weights of another model.
    """
    path = Path(path)
    state = model.state_dict(keep_vars=True)
    stored = _with_ties(_read_weights(path, device), state)
    _check_finite(path, stored)
    if why := _misfit(state, stored) or _untied(state, stored):
        raise UserError(
            f"{path} does not fit the {CONFIG} next to it: {why}{written_by(path.parent)}"
        )
    loaded: dict[int, Tensor] = {}  # tied weights are one parameter afterwards, too
    for name, tensor in state.items():
        if id(tensor) not in loaded:
            values = stored[name].to(tensor.dtype)
            if isinstance(tensor, nn.Parameter):
                values = nn.Parameter(values, tensor.requires_grad)
            loaded[id(tensor)] = values
    model.load_state_dict({name: loaded[id(state[name])] for name in state}, assign=True)


def holds_weights(model: nn.Module, folder: Path) -> bool:
    """Return whether a model has the weights in a folder, perhaps in another precision."""
    if not isinstance(model, nn.Module):
        return False
    state = model.state_dict(keep_vars=True)
    try:
        stored = _with_ties(_read_weights(folder / WEIGHTS), state)
    except UserError:
        return False
    return state.keys() == stored.keys() and all(
        tensor.shape == stored[name].shape
        and torch.equal(tensor.detach().cpu(), stored[name].to(tensor.dtype))
        for name, tensor in state.items()
    )


def load_some_weights(model: nn.Module, folder: Path, parts: Sequence[str]) -> str | None:
    """Read the weights of some parts of another model into a model.

    Args:
        model: The model; it does not change if the weights do not fit.
        folder: The folder of the other model.
        parts: Names of modules, such as ``encoder``.

    Returns:
        Why the weights do not fit; None if they were loaded.

    Raises:
        UserError: The file is missing or truncated.
    """

    def of_parts(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: weights[name] for name in weights if name.partition(".")[0] in parts}

    state = model.state_dict(keep_vars=True)
    stored = of_parts(_with_ties(_read_weights(folder / WEIGHTS), state))
    _check_finite(folder / WEIGHTS, stored)
    if why := _misfit(of_parts(state), stored) or _untied(of_parts(state), stored):
        return why
    model.load_state_dict(stored, strict=False)
    return None


def _read_weights(path: Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"no {path.name} in {path.parent}: is this a model folder?")
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            # Without the copy, the tensors would be mapped to the file and change when it does.
            names = list(file.keys())
            return {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError) as error:
        reason = first_line(error)
        raise UserError(f"{path} is truncated or not a safetensors file ({reason})") from None


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            continue
        if not tensor.isfinite().all():
            raise UserError(f"{path} is damaged: {name} has values that are not finite")
        if tensor.numel() and tensor.abs().max() > LARGEST:
            raise UserError(f"{path} is damaged: {name} has values above {LARGEST:g}")


def _with_ties(stored: dict[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the second name of a tied weight, which is stored once."""
    shared = {id(state[name]): tensor for name, tensor in stored.items() if name in state}
    for name, tensor in state.items():
        if name not in stored and id(tensor) in shared:
            stored[name] = shared[id(tensor)]
    return stored


def _untied(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Say which two weights are one in this model, but not in the other."""
    first: dict[int, str] = {}
    for name, tensor in expected.items():
        other = first.setdefault(id(tensor), name)
        if not torch.equal(found[name], found[other]):
            return f"{other} and {name} are not tied there"
    return None


def read_metadata(path: Path) -> dict[str, str]:
    """Return the strings stored with the weights; none if the file is missing or broken."""
    try:
        with safe_open(str(path), framework="pt") as file:
            stored = file.metadata() or {}
        found = json.loads(stored[ABOUT]) if ABOUT in stored else stored  # 0.1.0 had no ABOUT
    except (SafetensorError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    if missing := [name for name in expected if name not in found]:
        return f"{missing[0]} is missing"
    if foreign := [name for name in found if name not in expected]:
        return f"{foreign[0]} is not part of this model"
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            return f"{name} is {tuple(found[name].shape)} where {tuple(tensor.shape)} is expected"
        if found[name].is_floating_point() != tensor.is_floating_point():
            return f"{name} is {found[name].dtype} where {tensor.dtype} is expected"
    return None
