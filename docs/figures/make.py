"""Draw the figures of docs/posterior-collapse.md from finished run folders; trains nothing.

    bash recipes/toy/run.sh
    python docs/figures/make.py runs/toy/vae runs/toy/skip_vae-*

Every number comes from the runs: `metrics.jsonl` (training and validation) and `metrics/test.json`
(the card that `textvae evaluate` saves).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")  # Okabe and Ito: safe for color blindness
SMALLEST = 1e-5  # nats: a logarithmic axis cannot show an estimate at or below 0
STYLE = {
    "figure.dpi": 100,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "textvae",  # the same runs give the same bytes
}


class Run(NamedTuple):
    """What a run folder says about its latent variable."""

    name: str
    color: str
    train: list[dict[str, Any]]  # one record every `train.log_every` steps
    valid: list[dict[str, Any]]  # one record every `train.evaluate_every` epochs
    card: dict[str, Any]  # on the test split


def read_run(folder: Path, color: str) -> Run:
    """Read the logs and the test card of a run folder."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    card = json.loads((folder / "metrics" / "test.json").read_text(encoding="utf-8"))
    groups = [[r for r in records if r["group"] == group] for group in ("train", "valid")]
    return Run(folder.resolve().name, color, *groups, card)


def draw_kl_per_dimension(runs: list[Run]) -> Figure:
    """One panel per run: the KL of each latent dimension, largest first."""
    figure, axes = plt.subplots(1, len(runs), figsize=(3.5 * len(runs), 2.6), sharey=True)
    for axis, run in zip([axes] if len(runs) == 1 else axes, runs, strict=True):
        kl = sorted(run.card["kl_per_dim"], reverse=True)
        axis.bar(range(1, len(kl) + 1), kl, color=run.color)
        axis.set_title(f"{run.name}: {sum(kl):.2f} nats in total")
        axis.set_xlabel("dimension of z, largest first")
    figure.axes[0].set_ylabel("KL (nats)")
    return figure


def draw_training(runs: list[Run]) -> Figure:
    """KL, mutual information and active units against epochs."""
    figure, (kl, mi, au) = plt.subplots(1, 3, figsize=(8, 2.6), layout="constrained")
    for run in runs:
        _curve(kl, run, run.train, "kl", floor=SMALLEST)
        _curve(mi, run, run.valid, "mi", marker="o")
        _curve(au, run, run.valid, "au", marker="o")
    kl.set(title="KL in training (nats)", yscale="log")
    mi.set(title="mutual information (nats)")
    au.set(title="active units", ylim=(-0.5, max(run.card["latent_dim"] for run in runs) + 0.5))
    for axis in (kl, mi, au):
        axis.set(xlabel="epoch", xlim=(0, None))
    au.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(*mi.get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    return figure


def _curve(axis: Axes, run: Run, records: list[dict], key: str, floor=None, **style: Any) -> None:
    values = [r[key] if floor is None else max(r[key], floor) for r in records]
    epochs = [r["epoch"] for r in records]
    axis.plot(epochs, values, color=run.color, label=run.name, clip_on=False, **style)


def draw_shuffle_gap(runs: list[Run]) -> Figure:
    """What it costs to decode every example from the z of another one."""
    figure, axis = plt.subplots(figsize=(7, 0.6 + 0.45 * len(runs)))
    gaps = [run.card["shuffle_gap"] for run in runs]
    axis.barh([run.name for run in runs], gaps, color=[run.color for run in runs])
    for row, gap in enumerate(gaps):
        axis.annotate(
            f"{round(gap, 2) + 0.0:.2f}",
            (max(gap, 0), row),
            xytext=(4, 0),
            textcoords="offset points",
            verticalalignment="center",
        )
    axis.invert_yaxis()
    axis.set_xlabel("shuffle gap (nats per example)")
    axis.margins(x=0.1)
    return figure


def main() -> None:
    """Write the three figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of VAEs, evaluated on test")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    args = parser.parse_args()
    if len(args.runs) > len(COLORS):
        parser.error(f"at most {len(COLORS)} runs")
    for run in args.runs:
        if not (run / "metrics" / "test.json").exists():
            parser.error(f"{run} has no card: run textvae evaluate {run} --split test")
    runs = [read_run(*pair) for pair in zip(args.runs, COLORS, strict=False)]
    if languages := [run.name for run in runs if not run.card["latent_dim"]]:
        parser.error(f"no latent variable in {', '.join(languages)}")
    drawings = {
        "kl_per_dimension": draw_kl_per_dimension,
        "training": draw_training,
        "shuffle_gap": draw_shuffle_gap,
    }
    with plt.rc_context(STYLE):
        for name, draw in drawings.items():
            path = args.out / f"{name}.svg"
            draw(runs).savefig(path, bbox_inches="tight", metadata={"Date": None})
            print(path)


if __name__ == "__main__":
    main()
