"""What a training leaves for later eyes: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from textvae.config.experiment import Config
from textvae.runs.files import write_text

logger = logging.getLogger(__name__)


class Monitor:
    """Writes scalars, texts and pictures of one run, from ``step`` on.

    A resumed run forgets what was logged after its checkpoint, as those steps are run again.
    """

    def __init__(self, run: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = run / "metrics.jsonl"
        self._forget_after(step)
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def _forget_after(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):  # the line a kill cut short
                continue
        write_text(self.path, "".join(kept))

    def scalars(self, group: str, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, and each value as ``group/name`` in TensorBoard."""
        known = {k: v if math.isfinite(v) else None for k, v in values.items()}  # JSON has no NaN
        line = {"step": step, "epoch": round(epoch, 4), "group": group, **known}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self.board.add_scalar(f"{group}/{name}", value, step)

    def validation(self, step: int, epoch: float, card: Mapping[str, Any]) -> None:
        """Every number of a metrics card, and how the KL spreads over the latent dimensions."""
        numbers = {k: v for k, v in card.items() if isinstance(v, (int, float))}
        self.scalars("valid", step, epoch, numbers)
        for step_taken, elbo in enumerate(card.get("elbo_by_step", ())):
            self.board.add_scalar(f"elbo_by_refinement_step/{step_taken:02d}", elbo, step)
        if card["kl_per_dim"]:
            self.board.add_histogram("valid/kl_per_dim", torch.tensor(card["kl_per_dim"]), step)

    def show(self, step: int, title: str, shown: Sequence[str] | torch.Tensor) -> None:
        """Lines of text as one Markdown list, or pictures (N, 1, H, W) side by side."""
        if isinstance(shown, torch.Tensor):
            self.board.add_images(title, shown, step)
        else:
            self.board.add_text(title, "\n".join(f"- {_escape(line)}" for line in shown), step)

    def projector(
        self,
        step: int,
        means: torch.Tensor,
        rows: Sequence[tuple[str, str]],
        thumbnails: torch.Tensor | None = None,
    ) -> None:
        """Posterior means (N, Z) for the projector, each with its label and its caption, and with
        its picture where there are any (N, 1, H, W)."""
        clean = [[_escape(cell) or "-" for cell in row] for row in rows]
        options = {"tag": "posterior", "metadata_header": ["label", "text"]}
        if thumbnails is not None:
            options["label_img"] = thumbnails.expand(-1, 3, -1, -1)
        self.board.add_embedding(means, clean, global_step=step, **options)

    def close(self, step: int, config: Config, card: Mapping[str, Any] | None) -> None:
        """Hyper-parameters beside the last validation card, for comparing runs."""
        from torch.utils.tensorboard.summary import hparams

        flat = {
            f"{part}.{name}": value if isinstance(value, (int, float, str, bool)) else str(value)
            for part, fields in asdict(config).items()
            for name, value in fields.items()
        }
        final = {f"final/{k}": v for k, v in (card or {}).items() if isinstance(v, (int, float))}
        for summary in hparams(flat, final):  # add_hparams would open a second file
            self.board.file_writer.add_summary(summary, step)
        for name, value in final.items():
            self.board.add_scalar(name, value, step)
        self.board.close()


def _escape(line: str) -> str:
    return line.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ⏎ ")
