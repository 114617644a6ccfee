"""Sums of what a log line shows, over the updates since the last one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from textvae.vae.contracts import Terms

NAMES = ("loss", "rec", "kl", "gap", "examples", "tokens", "grad_norm", "updates")
PER_EXAMPLE = NAMES[:4]
CAUSES = {"kl": "the KL", "rec": "log p(x|z)", "gap": "the ELBO of a refinement step"}
CAUSES |= {"loss": "the loss", "grad_norm": "a gradient"}


class MetricSums:
    """Sums of metrics since the last log line, kept on the device to avoid synchronization.

    Loss, rec, KL, and the gain in ELBO from refinement are sums over examples, in nats; gradient
    norms are sums over updates.
    """

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.values = torch.zeros(len(NAMES), dtype=dtype, device=device)

    def add_batch(self, loss: Tensor, terms: Terms, lengths: Tensor) -> None:
        """Add one batch: its mean loss, its terms, and its numbers of predicted tokens (B,)."""
        size, start = len(lengths), terms.elbo if terms.path is None else terms.path[0]
        sums = [loss * size, terms.rec.sum(), terms.kl.sum(), (terms.elbo - start).sum()]
        self.values[:4] += torch.stack(sums).detach().to(self.values.dtype)
        self.values[4] += size
        self.values[5] += lengths.sum()

    def add_update(self, grad_norm: Tensor) -> None:
        """Add one optimizer step."""
        self.values[6] += grad_norm.detach()
        self.values[7] += 1

    def is_finite(self) -> bool:
        """Return whether every loss and gradient was finite."""
        return bool(self.values.isfinite().all())

    def not_finite(self) -> str:
        """Return what is not finite after a single update, the first in the computation."""
        finite = dict(zip(NAMES, self.values.isfinite().tolist(), strict=True))
        return next((what for name, what in CAUSES.items() if not finite[name]), "a weight")

    def total(self, accelerator: Any) -> Tensor:
        """Return the sums over all processes; every process has to call this."""
        if accelerator.num_processes == 1:
            return self.values
        return accelerator.reduce(self.values, "sum")

    def means(self, accelerator: Any) -> dict[str, float]:
        """Return the means over all processes.

        Returns:
            ``loss``, ``rec``, ``kl``, and ``gap`` in nats per example, ``grad_norm`` per update,
            and the total number of ``tokens``.
        """
        sums = dict(zip(NAMES, self.total(accelerator).tolist(), strict=True))
        examples, updates = max(1.0, sums["examples"]), max(1.0, sums["updates"])
        return {
            **{name: sums[name] / examples for name in PER_EXAMPLE},
            "grad_norm": sums["grad_norm"] / updates,
            "tokens": sums["tokens"],
        }
