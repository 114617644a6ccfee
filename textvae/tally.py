"""Sums over the updates since the last log line, on the device so that nothing waits for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from textvae.core.objectives import ElboTerms

NAMES = ("loss", "rec", "kl", "gap", "examples", "tokens", "grad_norm", "updates")
PER_EXAMPLE = NAMES[:4]


class Tally:
    """Loss, rec, KL and what refinement adds to the ELBO in nats, summed over examples; gradient
    norms, summed over updates."""

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.sums = torch.zeros(len(NAMES), dtype=dtype, device=device)

    def count(self, loss: Tensor, terms: ElboTerms, lengths: Tensor) -> None:
        """One batch: its mean loss, its terms and its predicted tokens (B,)."""
        size, start = len(lengths), terms.elbo if terms.path is None else terms.path[0]
        sums = [loss * size, terms.rec.sum(), terms.kl.sum(), (terms.elbo - start).sum()]
        self.sums[:4] += torch.stack(sums).detach().to(self.sums.dtype)
        self.sums[4] += size
        self.sums[5] += lengths.sum()

    def update(self, grad_norm: Tensor) -> None:
        """One optimiser step."""
        self.sums[6] += grad_norm.detach()
        self.sums[7] += 1

    def is_finite(self) -> bool:
        """Whether every loss and gradient was a number."""
        return bool(self.sums.isfinite().all())

    def total(self, accelerator: Any) -> Tensor:
        """The sums over all processes; every one of them has to ask."""
        return self.sums if accelerator.num_processes == 1 else accelerator.reduce(self.sums, "sum")

    def means(self, accelerator: Any) -> dict[str, float]:
        """Of all processes: loss, rec, kl, gap in nats per example; grad_norm per update; and the
        tokens in all."""
        sums = dict(zip(NAMES, self.total(accelerator).tolist(), strict=True))
        examples, updates = max(1.0, sums["examples"]), max(1.0, sums["updates"])
        return {
            **{name: sums[name] / examples for name in PER_EXAMPLE},
            "grad_norm": sums["grad_norm"] / updates,
            "tokens": sums["tokens"],
        }
