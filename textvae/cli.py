"""The command line: one function per command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textvae.arguments import config_of, parse, run_config
from textvae.console import start_logging
from textvae.errors import UserError
from textvae.outcome import exit_status

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from textvae.text.model import TextVAE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 2 for a mistake of the user's, 130 for Ctrl-C."""
    # Before torch loads: waiting threads that spin slow a busy machine down many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    start_logging()
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without the letters shows codes
    return exit_status("textvae", lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def _run(argv: Sequence[str]) -> None:
    command, args = parse(argv)
    COMMANDS[command](args)


def train(args: Namespace) -> None:
    """``textvae train``: a new run, or the rest of one."""
    from textvae import checkpoint
    from textvae.train import train as run_training

    if (args.out is None) == (args.resume is None):
        raise UserError("train needs either --out FOLDER for a new run or --resume FOLDER")
    run = Path(args.resume or args.out)
    config = config_of(args)
    if args.resume is None:
        checkpoint.create(run)
    run_training(config, run, resume=args.resume is not None)


def evaluate(args: Namespace) -> None:
    """``textvae evaluate``: the metrics card."""
    from textvae.compare import render_card
    from textvae.report import evaluate_run

    config = run_config(Path(args.run), data_dir=args.data)
    names = (
        *("split", "samples", "limit", "refine_steps", "generations"),
        *("precision", "batch_size", "seed"),
    )
    options = {name: getattr(args, name) for name in names}
    card = evaluate_run(Path(args.run), config, _model(args), **options)
    print(json.dumps(card, indent=2) if args.json else render_card(card))


def compare(args: Namespace) -> None:
    """``textvae compare``: one row per run."""
    from textvae.compare import compare as table
    from textvae.compare import find_card

    paths = [Path(run) for run in args.runs]
    print(table([find_card(path, args.split) for path in paths]))
    if args.provenance:
        from textvae.provenance import provenance

        print()
        print(provenance([path for path in paths if path.is_dir()], args.split))


def sample(args: Namespace) -> None:
    """``textvae sample``: sentences from the prior."""
    _print(_model(args).sample(args.n, do_sample=not args.greedy, **_generation(args)), args)


def reconstruct(args: Namespace) -> None:
    """``textvae reconstruct``: sentences and what becomes of them."""
    sources = args.texts or _lines(args.file or "-")
    outputs = _model(args).reconstruct(
        sources,
        use=args.use,
        refine_steps=args.refine_steps,
        do_sample=args.do_sample,
        **_generation(args),
    )
    _print(outputs, args, sources if args.format == "jsonl" or args.show_source else None)


def interpolate(args: Namespace) -> None:
    """``textvae interpolate``: sentences between two."""
    outputs = _model(args).interpolate(
        args.a,
        args.b,
        args.steps,
        args.kind,
        refine_steps=args.refine_steps,
        do_sample=args.do_sample,
        **_generation(args),
    )
    _print(outputs, args)


def encode(args: Namespace) -> None:
    """``textvae encode``: posterior means of a file."""
    from textvae.latents import check_format, write_latents

    check_format(Path(args.out))
    texts = _lines(args.file)
    q = _model(args).encode(
        texts, refine_steps=args.refine_steps, seed=args.seed, batch_size=args.batch_size
    )
    write_latents(Path(args.out), q, texts)


def decode(args: Namespace) -> None:
    """``textvae decode``: sentences for latent vectors."""
    from textvae.latents import read_latents

    z = read_latents(Path(args.file))
    _print(_model(args).decode(z, do_sample=args.do_sample, **_generation(args)), args)


COMMANDS = {
    function.__name__: function
    for function in (train, evaluate, compare, sample, reconstruct, interpolate, encode, decode)
}


def _model(args: Namespace) -> TextVAE:
    import torch

    from textvae.text.model import TextVAE

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return TextVAE.from_pretrained(args.run).to(device).eval()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _generation(args: Namespace) -> dict[str, object]:
    names = ("temperature", "top_k", "top_p", "num_beams", "max_new_tokens", "allow_unk", "seed")
    return {name: getattr(args, name) for name in names} | {"batch_size": args.batch_size}


def _lines(source: str) -> list[str]:
    from textvae.text.readers import decoded_lines, read_lines

    where = "standard input" if source == "-" else source
    rows = decoded_lines(sys.stdin.buffer, where) if source == "-" else read_lines(Path(source))
    lines = [line for _, line in rows]
    if not any(line.strip() for line in lines):
        raise UserError(f"{where} holds no sentence")
    return lines


def _print(outputs: Sequence[str], args: Namespace, sources: Sequence[str] | None = None) -> None:
    for i, output in enumerate(outputs):
        if args.format == "jsonl":
            row = {"text": output} if sources is None else {"source": sources[i], "text": output}
            print(json.dumps(row, ensure_ascii=False))
            continue
        if sources is not None:
            print(f"> {sources[i]}")
        print(output.replace("\n", " "))


if __name__ == "__main__":
    sys.exit(main())
