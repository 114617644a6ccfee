"""What the benchmarks share: interleaved timing, the machine's own peak, rows to print and save.

Every row has the keys of ``KEYS``; what does not apply is None. The peak is what large matrix
products reach here in the same run, the better of two libraries: never a figure of a data sheet.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from textvae.text.nn.products import product
from textvae.training.devices import peak_memory_mb

KEYS = ("name", "tok_s", "ratio_to_plain", "ratio_to_autocast", "peak_share", "peak_rss_mb")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Row = dict[str, Any]


class Timed(NamedTuple):
    """Seconds of one thing, measured several times."""

    median: float
    least: float
    most: float


def timed(seconds: Sequence[float]) -> Timed:
    """Their median and their range."""
    return Timed(statistics.median(seconds), min(seconds), max(seconds))


def measure(
    rows: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Seconds of each row, in turns, so that other load on the machine falls on all alike; after
    one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for repeat in range(repeats + warm_up):
        for name, run in rows.items():
            synchronise()
            started = clock()
            run()
            synchronise()
            if repeat >= warm_up:
                times[name].append(clock() - started)
    return times


def synchronise() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_rows(device: str = "cpu") -> dict[str, Callable[[], object]]:
    """Large matrix products, to be measured in turns with the rest."""
    made = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
        made[f"peak {precision}"] = lambda a=a, b=b: a @ b.t()
        made[f"peak {precision} oneDNN"] = lambda a=a, b=b: product(a, b)
    return made


SIDE = 2048


def peak_of(times: dict[str, list[float]], precision: str) -> float:
    """Operations per second of the quickest large product: an addition or a multiplication each."""
    quickest = min(min(s) for name, s in times.items() if name.startswith(f"peak {precision}"))
    return 2 * SIDE**3 / quickest


def row(name: str, tokens: float, seconds: Timed, **further: Any) -> Row:
    """A row with every key; ``further`` fills those that apply, and others."""
    known: Row = dict.fromkeys(KEYS)
    known |= {"name": name, "tok_s": tokens / seconds.median, "ms": 1e3 * seconds.median}
    known |= {"ms_min": 1e3 * seconds.least, "ms_max": 1e3 * seconds.most}
    return known | {"peak_rss_mb": peak_memory_mb()} | further


def show(rows: list[Row], columns: dict[str, str]) -> None:
    """A Markdown table; ``columns``: key -> how to write its value, as in ``{:,.0f}``."""
    print("| " + " | ".join(columns) + " |\n|---|" + "--:|" * (len(columns) - 1))
    for each in rows:
        cells = ["–" if each[k] is None else form.format(each[k]) for k, form in columns.items()]
        print("| " + " | ".join(cells) + " |", flush=True)


def save(rows: list[Row], path: Path | None) -> None:
    """As a JSON list, where a path is given."""
    if path is not None:
        path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
