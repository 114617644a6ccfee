"""The activations of ChemNet (Mayr et al. 2018), which the Fréchet ChemNet distance compares.

Two convolutions and two LSTMs that read the canonical SMILES of a molecule, one symbol after the
other. The weights are those in the package fcd-torch, read without unpickling; its code is not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textvae.errors import UserError, first_line

SYMBOLS = (
    *("C", "N", "O", "H", "F", "Cl", "P", "B", "Br", "S", "I", "Si", "#", "(", ")", "+", "-"),
    *("1", "2", "3", "4", "5", "6", "7", "8", "=", "[", "]", "@", "c", "n", "o", "s", "X", "."),
)
UNKNOWN, END = SYMBOLS.index("X"), SYMBOLS.index(".")
LENGTH = 350  # symbols, with the end; what is longer is cut
WEIGHTS = "ChemNet_v0.13_pretrained.pt"
_SYMBOL = re.compile(r".[ril]|.", re.DOTALL)  # any symbol before r, i, or l has two letters


class ChemNet(nn.Module):
    """The published network, up to its last hidden layer.

    Args:
        layers: The content of the weights file: kind, weights, arguments, and further options of
            each layer.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.convolutions, self.recurrences = nn.ModuleList(), nn.ModuleList()
        for kind, (weights, arguments, _) in layers:
            layer: nn.Module
            if kind == "Conv1d":
                layer = nn.Conv1d(**{**arguments, "padding": 0})
                self.convolutions.append(layer)
            else:
                layer = nn.LSTM(**arguments)
                self.recurrences.append(layer)
            layer.load_state_dict(weights)
        self.eval()

    def forward(self, symbols: Tensor) -> Tensor:
        """Return the activations (B, 512) for one-hot symbols (B, LENGTH, 35)."""
        x = symbols.transpose(1, 2) / len(SYMBOLS)  # (B, 35, T), scaled as it was trained
        for convolution in self.convolutions:
            x = nn.functional.selu(convolution(_padded(x, convolution)))
        x = x.transpose(1, 2)  # (B, T, C)
        for recurrence in self.recurrences:  # each reads its input backward
            x, _ = recurrence(x.flip(1))
        return x[:, -1]


def load_chemnet() -> ChemNet | None:
    """Load the network; None if the package fcd-torch is not installed.

    Raises:
        UserError: Its weights are missing or damaged.
    """
    try:
        parts = files("fcd_torch") or []
    except PackageNotFoundError:
        return None
    found = [Path(str(part.locate())) for part in parts if part.name == WEIGHTS]
    if not found:
        raise UserError(f"fcd-torch is installed, but it has no {WEIGHTS}: reinstall it")
    return read_chemnet(found[0])


def read_chemnet(path: Path) -> ChemNet:
    """Read the published weights.

    Raises:
        UserError: The file is missing or is not that of the network.
    """
    try:
        return ChemNet(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # torch and the layers raise whatever a damaged file leads to
        reason = first_line(error)
        raise UserError(f"{path}: not the weights of ChemNet ({reason})") from None


@torch.no_grad()
def activations(network: ChemNet, molecules: Sequence[str], batch_size: int = 256) -> np.ndarray:
    """Compute the activations of ChemNet.

    Args:
        network: The network.
        molecules: N canonical SMILES.
        batch_size: Molecules per batch; does not change the results.

    Returns:
        (N, 512).
    """
    found = [network(batch).numpy() for batch in _batches(molecules, batch_size)]
    return np.concatenate(found) if found else np.zeros((0, 512), np.float32)


def _batches(molecules: Sequence[str], size: int) -> Iterator[Tensor]:
    for start in range(0, len(molecules), size):
        rows = [symbol_ids(text) for text in molecules[start : start + size]]
        batch = torch.zeros(len(rows), LENGTH, len(SYMBOLS))
        for one_hot, ids in zip(batch, rows, strict=True):
            one_hot[torch.arange(len(ids)), torch.tensor(ids)] = 1
        yield batch


def symbol_ids(smiles: str) -> list[int]:
    """Return the symbols of a molecule and the end; at most ``LENGTH``.

    As in the published code, any symbol before an r, i, or l has two letters, and the end of a
    molecule is also what separates two of them, so that only the first one is read.
    """
    ids: list[int] = []
    for symbol in _SYMBOL.findall(smiles):
        if symbol[0] == "." and ids:
            break
        ids.append(SYMBOLS.index(symbol) if symbol in SYMBOLS else UNKNOWN)
        if len(ids) == LENGTH - 1:
            break
    return [*ids, END]


def _padded(x: Tensor, convolution: Any) -> Tensor:
    """Pad x (B, C, T) with zeros as Keras does, so that the output has T / stride steps."""
    (kernel,), (stride,) = convolution.kernel_size, convolution.stride
    rest = x.size(2) % stride
    total = max(kernel - (rest or stride), 0)
    left = total // stride  # the published code; Keras would pad half
    return nn.functional.pad(x, (left, total - left))
