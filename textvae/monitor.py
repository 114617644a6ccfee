"""What a user sees of a training: the progress line, TensorBoard, metrics.jsonl."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from textvae.config import Config
from textvae.files import write_text

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
        line = {"step": step, "epoch": round(epoch, 4), "group": group, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self.board.add_scalar(f"{group}/{name}", value, step)

    def validation(self, step: int, epoch: float, card: Mapping[str, Any]) -> None:
        """Every number of a metrics card, and how the KL spreads over the latent dimensions."""
        numbers = {k: v for k, v in card.items() if isinstance(v, (int, float))}
        self.scalars("valid", step, epoch, numbers)
        if card["kl_per_dim"]:
            self.board.add_histogram("valid/kl_per_dim", torch.tensor(card["kl_per_dim"]), step)

    def texts(self, step: int, title: str, lines: Sequence[str]) -> None:
        """Sentences as one Markdown list."""
        self.board.add_text(title, "\n".join(f"- {_escape(line)}" for line in lines), step)

    def projector(self, step: int, means: torch.Tensor, rows: Sequence[tuple[str, str]]) -> None:
        """Posterior means (N, Z), each with its label and its sentence, for the projector."""
        clean = [[_escape(cell) or "-" for cell in row] for row in rows]
        self.board.add_embedding(
            means, clean, global_step=step, tag="posterior", metadata_header=["label", "text"]
        )

    def close(self, config: Config, card: Mapping[str, Any] | None) -> None:
        """Hyper-parameters beside the last validation card, for comparing runs."""
        flat = {
            f"{part}.{name}": value if isinstance(value, (int, float, str, bool)) else str(value)
            for part, fields in asdict(config).items()
            for name, value in fields.items()
        }
        final = {f"final/{k}": v for k, v in (card or {}).items() if isinstance(v, (int, float))}
        self.board.add_hparams(flat, final, run_name=".")
        self.board.close()


def _escape(line: str) -> str:
    return line.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ⏎ ")


class Progress:
    """One live line on a terminal; plain log lines elsewhere. Tokens are predicted real ones."""

    def __init__(self, total_steps: int, step: int) -> None:
        self.total_steps, self.first, self.started = total_steps, step, time.perf_counter()
        self.bar = None

    def __enter__(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if console.is_terminal:
            columns = (BarColumn(bar_width=12), TextColumn("{task.description}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self.task = self.bar.add_task("starting", total=self.total_steps, completed=self.first)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """The latest training numbers."""
        text = (
            f"epoch {epoch:.2f} loss {values['loss']:.2f} kl {values['kl']:.2f} "
            f"beta {values['beta']:.2f} {values['tokens_per_second']:,.0f} tok/s"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=text)
            return
        done = step - self.first
        left = (time.perf_counter() - self.started) / max(1, done) * (self.total_steps - step)
        logger.info("step %d/%d %s, at most %s left", step, self.total_steps, text, clock(left))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
