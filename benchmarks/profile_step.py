"""Where the time of a training step goes on a GPU: kernels, launches, and waiting.

    python benchmarks/profile_step.py --size yahoo --device cuda --json FILE

``busy`` is the share of the time in which the device computes; the rest is spent on launches, on
Python, and on waiting for the device. If it is low, the step is bound by latency, and larger
batches cost nothing. On a CPU, the time of an operation is that of the thread that runs it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from measuring import Row, parse, row, run_as_program, save, show, synchronize, timed
from torch.profiler import ProfilerActivity, profile
from train_speed import BATCH, MODELS, SIZES, batch_of, our_optimizer, step_of, textvae_of

from textvae.vae.objectives import elbo

SHOWN = 12  # kernels, the longest


def step_for(model_name: str, args: argparse.Namespace) -> Callable[[], None]:
    """Return a function that makes one training step."""
    size = SIZES[args.size]
    batch = batch_of(size, args.batch).to(args.device)
    model = textvae_of(model_name, size).to(args.device)
    optimizer = our_optimizer("sgd", model)
    return step_of(model, optimizer, lambda: elbo(model(batch)), args.precision)


def profiled(step: Callable[[], None], args: argparse.Namespace) -> tuple[float, list[Any]]:
    """Return the time of a step without the profiler in seconds, and its events with it."""
    for _ in range(3):  # the first steps choose kernels and allocate memory
        step()
    synchronize()
    started = time.perf_counter()
    for _ in range(args.repeats):
        step()
    synchronize()
    seconds = (time.perf_counter() - started) / args.repeats
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if args.device == "cuda" else []
    with profile(activities=kinds) as found:
        for _ in range(args.repeats):
            step()
        synchronize()
    return seconds, list(found.key_averages())


def table(args: argparse.Namespace) -> list[Row]:
    """Profile every model: a row for the step, then one for each of its longest kernels."""
    rows, tokens = [], args.batch * SIZES[args.size].length
    on_gpu = args.device == "cuda"
    for name in args.models:
        torch.manual_seed(0)
        seconds, events = profiled(step_for(name, args), args)
        if on_gpu:  # the operations on the host carry the time of their kernels, too
            events = [e for e in events if _is_kernel(e)]
        spent = {e.key: _microseconds(e, on_gpu) / args.repeats / 1e6 for e in events}
        calls = {e.key: e.count / args.repeats for e in events}
        named = f"{name} {args.precision}"
        rows.append(_row(named, seconds, sum(spent.values()), seconds, sum(calls.values())))
        rows[-1]["tok_s"] = tokens / seconds
        for key in sorted(spent, key=lambda key: -spent[key])[:SHOWN]:
            rows.append(_row(f"… {key[:60]}", spent[key], spent[key], seconds, calls[key]))
    return rows


def _row(name: str, own: float, busy: float, step: float, calls: float) -> Row:
    return row(name, 0, timed([own])) | {"busy": busy / step, "calls": calls}


def _is_kernel(event: Any) -> bool:
    """Return whether it is work of the GPU; annotations span kernels that are listed as well."""
    on_gpu = str(event.device_type).endswith("CUDA")
    return on_gpu and not getattr(event, "is_user_annotation", False)


def _microseconds(event: Any, on_gpu: bool) -> float:
    return event.self_device_time_total if on_gpu else event.self_cpu_time_total


COLUMNS = {"name": "{}", "ms": "{:.3f}", "busy": "{:.1%}", "calls": "{:,.0f}", "tok_s": "{:,.0f}"}


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Profile, print, and save; return the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="yahoo")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["skip_vae"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--batch", type=int, default=BATCH, help="sentences per batch")
    parser.add_argument("--repeats", type=int, default=10, help="steps that are profiled")
    args = parse(parser, words)
    rows = table(args)
    show(f"{args.size}: batch {args.batch}, {args.device}, per step", rows, COLUMNS)
    save(rows, args.json)
    return rows


if __name__ == "__main__":
    run_as_program(main)
