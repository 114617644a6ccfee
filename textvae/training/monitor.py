"""Training logs: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.config.experiment import Config, options_read
from textvae.errors import UserError
from textvae.evaluation.metrics.table import BY_KEY
from textvae.runs.files import finite, json_line, write_text
from textvae.runs.model_folder import is_number
from textvae.runs.run_folder import LOG, last_good, read_log
from textvae.training.board import Board

logger = logging.getLogger(__name__)

PROJECTOR = "projector"  # the folder of the projector's files
CEILING = "mi_max"  # a constant that is plotted all the same, with the MI
# What the tab "Custom Scalars" shows, by title; the tags are regular expressions.
CHARTS = {
    "ELBO (nats per example)": ["valid/elbo$"],
    "reconstruction and KL (nats per example)": ["valid/rec$", "valid/kl$"],
    "mutual information and its ceiling (nats)": ["valid/mi$", f"valid/{CEILING}$"],
    "active units": ["valid/au$"],
    "KL weight": ["train/beta$"],
    "learning rate": ["train/lr$"],
}


class Monitor:
    """Writes the scalars, texts, and images of one run.

    A resumed run deletes what was logged after its checkpoint, because it repeats those steps.

    Args:
        run: The run folder.
        step: The step at which the training starts or resumes.
        has_log: Whether anything was logged before.
    """

    def __init__(self, run: Path, step: int = 0, *, has_log: bool = True) -> None:
        self.path = run / LOG
        self._kl_history: list[tuple[float, list[float]]] = []  # epoch, KL by dimension
        self._forget_after(step, has_log)
        old = run / "tensorboard"  # where release 0.1.0 wrote; TensorBoard names runs by folder
        self.board = Board(old if old.is_dir() else run, purge_step=step + 1)
        layout = {title: ["Multiline", tags] for title, tags in CHARTS.items()}
        self.board.add_custom_scalars({"training": layout})

    def _forget_after(self, step: int, has_log: bool) -> None:
        if not self.path.exists():
            if step and has_log:
                logger.warning("%s is missing: the history up to step %d is lost", self.path, step)
            return
        kept = [line for line in read_log(self.path.parent) if line["step"] <= step]
        for line in kept:
            self._remember(line)
        write_text(self.path, "".join(f"{json_line(line)}\n" for line in kept))

    def scalars(self, group: str, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Write one line of metrics.jsonl, and each value as ``group/name`` to TensorBoard."""
        self._write_line(group, step, epoch, values)
        for name, value in values.items():
            self.board.add_scalar(f"{group}/{name}", value, step)

    def _write_line(self, group: str, step: int, epoch: float, values: Mapping[str, Any]) -> None:
        line = {"step": step, "epoch": round(epoch, 4), "group": group, **finite(values)}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_line(line) + "\n")
        except OSError as error:
            run = self.path.parent
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; {last_good(run)}"
            ) from error
        self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        if line.get("kl_per_dim"):
            self._kl_history.append((line["epoch"], line["kl_per_dim"]))

    def validation(
        self, step: int, epoch: float, card: Mapping[str, Any], beta: float | None = None
    ) -> None:
        """Log a validation card, and the KL weight at that time.

        All of its numbers go to metrics.jsonl, and its warning if z is not used. In TensorBoard,
        ``valid`` holds the curves of ``textvae compare`` and ``valid_details`` all others;
        constants are left out, except the ceiling of the MI.
        """
        numbers = _numbers(card)
        keys = ("kl_per_dim", "encoder_kl_per_dim")
        per_dim = {key: card[key] for key in keys if card.get(key)}
        weight = {} if beta is None else {"beta": beta}
        warning = {"collapse": card["collapse"]} if card.get("collapse") else {}
        self._write_line("valid", step, epoch, numbers | weight | warning | per_dim)
        for name, value in _curves(numbers).items():
            self.board.add_scalar(f"{_group(name)}/{name}", value, step)
        for refinement_step, elbo in enumerate(card.get("elbo_by_step") or ()):
            self.board.add_scalar(f"elbo_by_refinement_step/{refinement_step:02d}", elbo, step)
        if "kl_per_dim" in per_dim:
            self.board.add_histogram("valid/kl_per_dim", torch.tensor(card["kl_per_dim"]), step)
            self._show_kl_history(step)

    def _show_kl_history(self, step: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        from textvae.evaluation.diagnosis.kl_history import kl_heat_map

        canvas = FigureCanvasAgg(kl_heat_map(*zip(*self._kl_history, strict=True)))
        canvas.draw()  # by hand, because add_figure would import pyplot and its backend
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        self.board.add_image("valid/kl_by_dimension", pixels, step, dataformats="HWC")

    def show(self, step: int, title: str, shown: Sequence[Mapping[str, str]] | Tensor) -> None:
        """Show examples as a table, or images (N, 1, H, W) next to each other.

        Args:
            step: The training step.
            title: The tag in TensorBoard.
            shown: The texts of each example by column, the same columns for all; or images.
        """
        if isinstance(shown, Tensor):
            self.board.add_images(title, shown, step)
        else:
            self.board.add_text(title, _table(shown), step)

    def projector(
        self,
        means: Tensor,
        rows: Sequence[tuple[str, str]],
        thumbnails: Tensor | None = None,
    ) -> None:
        """Show posterior means in TensorBoard's projector.

        Args:
            means: Posterior means (N, Z).
            rows: The label and the caption of each example.
            thumbnails: Images of the examples (N, 1, H, W), if they are images.
        """
        clean = [[_escape(cell) or "-" for cell in row] for row in rows]
        options: dict[str, Any] = {"tag": "posterior", "metadata_header": ["label", "text"]}
        if thumbnails is not None:
            options["label_img"] = thumbnails.expand(-1, 3, -1, -1)
        shutil.rmtree(self.path.with_name(PROJECTOR), ignore_errors=True)  # of an earlier training
        self.board.add_embedding(means, clean, global_step=PROJECTOR, **options)

    def finish(self, step: int, config: Config, card: Mapping[str, Any] | None) -> None:
        """Write the hyperparameters that were set, for comparing runs.

        The metrics of the comparison are the last points of the validation curves.
        """
        from torch.utils.tensorboard.summary import hparams

        last = {f"{_group(key)}/{key}": v for key, v in _curves(_numbers(card or {})).items()}
        shown = {tag: value for tag, value in last.items() if tag.startswith("valid/")}
        for summary in hparams(_set_options(config), shown):  # add_hparams opens a second file
            self.board.add_summary(summary, step)


def _set_options(config: Config) -> dict[str, Any]:
    """Return the options that matter and differ from their defaults, by ``section.name``."""
    defaults, read = asdict(Config()), options_read(config)
    return {
        f"{section}.{name}": value if isinstance(value, (int, float, bool)) else _encodable(value)
        for section, fields in asdict(config).items()
        for name, value in fields.items()
        if value != defaults[section][name] and name in read.get(section, ())
    }


def _encodable(value: Any) -> str:
    """Return a value as text; bytes of a file name that are not UTF-8 become escapes."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _numbers(card: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in card.items() if is_number(value)}


def _curves(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that change during training."""
    return {
        key: value
        for key, value in numbers.items()
        if key not in BY_KEY or BY_KEY[key].section != "setup" or key == CEILING
    }


def _group(key: str) -> str:
    shown = key in BY_KEY and BY_KEY[key].column != "never"
    return "valid" if shown or key == CEILING else "valid_details"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table of texts by column."""
    lines = [list(rows[0]), ["---"] * len(rows[0])] if rows else []
    lines += [[_escape(text) for text in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(line: str) -> str:
    for mark, shown in (("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("\t", " ")):
        line = line.replace(mark, shown)
    return line.replace("\n", " ⏎ ")
