"""Training logs: metrics.jsonl and TensorBoard."""

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
from textvae.evaluation.metrics import BY_KEY
from textvae.runs.files import write_text

logger = logging.getLogger(__name__)


class Monitor:
    """Writes the scalars, texts, and images of one run.

    A resumed run deletes what was logged after its checkpoint, because it repeats those steps.

    Args:
        run: The run folder.
        step: The step at which the training starts or resumes.
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
            except (ValueError, KeyError):  # a line cut short when the process was killed
                continue
        write_text(self.path, "".join(kept))

    def scalars(self, group: str, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Write one line of metrics.jsonl, and each value as ``group/name`` to TensorBoard."""
        self._write_line(group, step, epoch, values)
        for name, value in values.items():
            self.board.add_scalar(f"{group}/{name}", value, step)

    def _write_line(self, group: str, step: int, epoch: float, values: Mapping[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}  # JSON has no NaN
        line = {"step": step, "epoch": round(epoch, 4), "group": group, **finite}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def validation(self, step: int, epoch: float, card: Mapping[str, Any]) -> None:
        """Log a validation card.

        All of its numbers go to metrics.jsonl. In TensorBoard, ``valid`` holds the curves of
        ``textvae compare`` and ``valid_details`` all others; constants are left out.
        """
        numbers = _numbers(card)
        self._write_line("valid", step, epoch, numbers)
        for name, value in _curves(numbers).items():
            self.board.add_scalar(f"{_group(name)}/{name}", value, step)
        for refinement_step, elbo in enumerate(card.get("elbo_by_step") or ()):
            self.board.add_scalar(f"elbo_by_refinement_step/{refinement_step:02d}", elbo, step)
        if card.get("kl_per_dim"):
            self.board.add_histogram("valid/kl_per_dim", torch.tensor(card["kl_per_dim"]), step)

    def show(self, step: int, title: str, shown: Sequence[str] | torch.Tensor) -> None:
        """Show lines of text as a Markdown list, or images (N, 1, H, W) next to each other."""
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
        """Show posterior means in TensorBoard's projector.

        Args:
            step: The training step.
            means: Posterior means (N, Z).
            rows: The label and the caption of each example.
            thumbnails: Images of the examples (N, 1, H, W), if they are images.
        """
        clean = [[_escape(cell) or "-" for cell in row] for row in rows]
        options: dict[str, Any] = {"tag": "posterior", "metadata_header": ["label", "text"]}
        if thumbnails is not None:
            options["label_img"] = thumbnails.expand(-1, 3, -1, -1)
        self.board.add_embedding(means, clean, global_step=step, **options)

    def close(self, step: int, config: Config, card: Mapping[str, Any] | None) -> None:
        """Write the hyperparameters and the last validation card, for comparing runs, and close."""
        from torch.utils.tensorboard.summary import hparams

        flat = {
            f"{part}.{name}": value if isinstance(value, (int, float, str, bool)) else str(value)
            for part, fields in asdict(config).items()
            for name, value in fields.items()
        }
        final = {f"final/{name}": value for name, value in _curves(_numbers(card or {})).items()}
        for summary in hparams(flat, final):  # add_hparams would open a second file
            self.board._get_file_writer().add_summary(summary, step)
        for name, value in final.items():
            self.board.add_scalar(name, value, step)
        self.board.close()


def _numbers(card: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: value
        for key, value in card.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _curves(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that change during training."""
    return {
        key: value
        for key, value in numbers.items()
        if key not in BY_KEY or BY_KEY[key].section != "setup"
    }


def _group(key: str) -> str:
    shown = key in BY_KEY and BY_KEY[key].column != "never"
    return "valid" if shown else "valid_details"


def _escape(line: str) -> str:
    return line.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ⏎ ")
