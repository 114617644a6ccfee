"""What the benchmarks share: interleaved timing, the peak of the machine, and tables of rows.

Every row has the keys in ``KEYS``; those that do not apply are None. The peak is the speed that
large matrix products reach in the same run, with the faster of two libraries. It is never taken
from a data sheet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import textvae
from textvae.cli.exit_codes import exit_status
from textvae.runs.origin import commit
from textvae.text.nn.products import product
from textvae.training.devices import keep_freed_memory, peak_memory_mb

KEYS = ("name", "tok_s", "ratio_to_plain", "ratio_to_autocast", "peak_share", "peak_rss_mb")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PACKAGE = Path(textvae.__file__).resolve().parent  # what is measured
# Of the matrices whose product gives the peak; on a GPU, it has to take longer than its launch.
SIDES = {"cpu": 2048, "cuda": 8192}
Row = dict[str, Any]


class Timed(NamedTuple):
    """The time of one thing that was measured several times, in seconds."""

    median: float
    least: float
    most: float


def timed(seconds: Sequence[float]) -> Timed:
    """Return the median and the range of repeated measurements."""
    return Timed(statistics.median(seconds), min(seconds), max(seconds))


def measure(
    rows: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: bool = True,
    memory: dict[str, int] | None = None,
) -> dict[str, list[float]]:
    """Time all rows in turn, so that other load on the machine affects all of them alike.

    Args:
        rows: What to run, by name.
        repeats: Measurements of each row.
        clock: Returns seconds.
        warm_up: Whether to run one more round first, which is not counted.
        memory: Gets what each row allocates at most in MiB, if there is a GPU.

    Returns:
        The seconds of each measurement, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in rows}
    for repeat in range(repeats + warm_up):
        for name, run in rows.items():
            synchronize()
            if on_gpu := torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            started = clock()
            run()
            synchronize()
            if repeat >= warm_up:
                times[name].append(clock() - started)
            if on_gpu and memory is not None:
                memory[name] = (torch.cuda.max_memory_allocated() - before) // 2**20
    return times


def synchronize() -> None:
    """Wait until the GPU has finished, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_rows(device: str = "cpu") -> dict[str, Callable[[], object]]:
    """Return large matrix products, to be measured in turn with the other rows."""
    made, side = {}, SIDES[device]
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        made[f"peak {precision}"] = lambda a=a, b=b: a @ b.t()
        made[f"peak {precision} oneDNN"] = lambda a=a, b=b: product(a, b)
    return made


def peak_of(times: dict[str, list[float]], precision: str, device: str = "cpu") -> float:
    """Return the additions and multiplications per second of the fastest large product.

    Args:
        times: What ``measure`` returned for rows that include ``peak_rows``.
        precision: ``fp32`` or ``bf16``.
        device: The device that ``peak_rows`` was called with.
    """
    fastest = min(min(s) for name, s in times.items() if name.startswith(f"peak {precision}"))
    return 2 * SIDES[device] ** 3 / fastest


def row(name: str, tokens: float, seconds: Timed, **further: Any) -> Row:
    """Make a row that has every key.

    Args:
        name: Name of the row.
        tokens: Tokens in one measurement; 0 if the row has no speed.
        seconds: The time of one measurement.
        further: Values of the other keys that apply, and of any additional keys.
    """
    known: Row = dict.fromkeys(KEYS)
    speed = tokens / seconds.median if tokens else None
    known |= {"name": name, "tok_s": speed, "ms": 1e3 * seconds.median}
    known |= {"ms_min": 1e3 * seconds.least, "ms_max": 1e3 * seconds.most}
    # The peak of a GPU is that since ``measure`` began its last row.
    memory = None if torch.cuda.is_available() else peak_memory_mb()
    return known | {"peak_rss_mb": memory} | further


def show(title: str, rows: list[Row], columns: dict[str, str]) -> None:
    """Print a title, what was measured, and a Markdown table.

    The second line names the package that was imported, so that a comparison of two checkouts shows
    that it measured both.

    Args:
        title: The setting that all rows have in common.
        rows: The rows.
        columns: The format of each column's values by key, such as ``{:,.0f}``.
    """
    print(title)
    print(f"{PACKAGE}, commit {commit()}, torch {torch.__version__}")
    print("| " + " | ".join(columns) + " |\n|---|" + "--:|" * (len(columns) - 1))
    for each in rows:
        cells = ["–" if each[k] is None else form.format(each[k]) for k, form in columns.items()]
        print("| " + " | ".join(cells) + " |", flush=True)


def parse(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """Add the options of every speed script, read the command line, and set up torch."""
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="save the rows to this file")
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    return args


def save(rows: list[Row], path: Path | None) -> None:
    """Save the rows as a JSON list if a path is given."""
    if path is not None:
        path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def run_as_program(main: Callable[[], object]) -> None:
    """Run a benchmark and exit; an error that the user can fix is one line, as in ``textvae``."""

    def run() -> None:
        main()

    sys.exit(exit_status(Path(sys.argv[0]).stem, run))
