"""The command line: one function per command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from textvae.cli.arguments import config_of, parse, run_config
from textvae.cli.exit_codes import exit_status
from textvae.errors import UserError
from textvae.training.progress import start_logging

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from textvae.vae.model import Model


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 2 for a mistake of the user's, 130 for Ctrl-C."""
    # Before torch loads. How long a waiting OpenMP thread spins: by default so long that a busy
    # machine slows down many times over, and not at all costs a quiet one up to half its speed.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    start_logging()
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without the letters shows codes
    return exit_status("textvae", lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def _run(argv: Sequence[str]) -> None:
    command, args = parse(argv)
    COMMANDS[command](args)


def train(args: Namespace) -> None:
    """``textvae train``: a new run, or the rest of one."""
    from textvae.runs import run_folder as checkpoint
    from textvae.training.loop import train as run_training

    if (args.out is None) == (args.resume is None):
        raise UserError("train needs either --out FOLDER for a new run or --resume FOLDER")
    run = Path(args.resume or args.out)
    config = config_of(args)
    if args.resume is None:
        checkpoint.create(run)
    run_training(config, run, resume=args.resume is not None)


def evaluate(args: Namespace) -> None:
    """``textvae evaluate``: the metrics card."""
    from textvae.evaluation.compare import render_card
    from textvae.evaluation.run_card import evaluate_run

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
    from textvae.evaluation.compare import compare as table
    from textvae.evaluation.compare import find_card

    paths = [Path(run) for run in args.runs]
    print(table([find_card(path, args.split) for path in paths]))
    if args.provenance:
        from textvae.evaluation.provenance import provenance

        print()
        print(provenance([path for path in paths if path.is_dir()], args.split))


def sample(args: Namespace) -> None:
    """``textvae sample``: sentences, or images, from the prior."""
    model = _model(args)
    if pictures := _gallery(model, args):
        return pictures.sample(model, args)
    _print(model.sample(args.n, do_sample=not args.greedy, **_generation(args)), args)


def reconstruct(args: Namespace) -> None:
    """``textvae reconstruct``: sentences and what becomes of them."""
    model = _model(args)
    if pictures := _gallery(model, args):
        return pictures.reconstruct(model, args)
    sources = args.texts or _lines(args.file or "-")
    outputs = model.reconstruct(
        sources,
        use=args.use,
        refine_steps=args.refine_steps,
        do_sample=args.do_sample,
        **_generation(args),
    )
    _print(outputs, args, sources if args.format == "jsonl" or args.show_source else None)


def interpolate(args: Namespace) -> None:
    """``textvae interpolate``: sentences between two."""
    model = _model(args)
    if pictures := _gallery(model, args):
        return pictures.interpolate(model, args)
    outputs = model.interpolate(
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
    from textvae.runs.latents import check_format, write_latents

    check_format(Path(args.out))
    model = _model(args)
    if _is_of_images(model):
        from textvae.cli.gallery import images_of

        examples, texts = images_of(Path(args.file))
    else:
        examples = texts = _lines(args.file)
    q = model.encode(
        examples, refine_steps=args.refine_steps, seed=args.seed, batch_size=args.batch_size
    )
    write_latents(Path(args.out), q, texts)


def decode(args: Namespace) -> None:
    """``textvae decode``: sentences for latent vectors."""
    from textvae.runs.latents import read_latents

    z = read_latents(Path(args.file))
    model = _model(args)
    if pictures := _gallery(model, args):
        return pictures.decode(model, args, z)
    _print(model.decode(z, do_sample=args.do_sample, **_generation(args)), args)


def probe(args: Namespace) -> None:
    """``textvae probe``: labels from the latent."""
    from textvae.build import build_data
    from textvae.evaluation.probe import probe as run_probe
    from textvae.evaluation.probe import render

    run = Path(args.run)
    splits = build_data(run_config(run, data_dir=args.data), run)
    names = ("split", "refine_steps", "batch_size", "seed")
    found = run_probe(run, _model(args), splits, **{name: getattr(args, name) for name in names})
    print(json.dumps(found, indent=2) if args.json else render(found))


def map(args: Namespace) -> None:
    """``textvae map``: the latent space in two dimensions."""
    from textvae.evaluation.map import draw_map
    from textvae.evaluation.run_card import find_split

    run = Path(args.run)
    split = find_split(run, run_config(run, data_dir=args.data), args.split)
    names = ("limit", "refine_steps", "batch_size", "seed")
    options = {name: getattr(args, name) for name in names}
    draw_map(Path(args.out), _model(args), split, title=run.resolve().name, **options)
    print(f"{min(args.limit, len(split))} examples of {args.split} in {args.out}")


COMMANDS = {
    function.__name__: function
    for function in (
        *(train, evaluate, compare, sample, reconstruct, interpolate, encode, decode),
        *(probe, map),
    )
}


def _model(args: Namespace) -> Model:
    import torch

    from textvae.build import load_model

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return load_model(args.run).to(device).eval()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _is_of_images(model: Model) -> bool:
    from textvae.images.model import ImageVAE

    return isinstance(model, ImageVAE)


def _gallery(model: Model, args: Namespace) -> ModuleType | None:
    """The commands on images where the model is of images; None for text."""
    if _is_of_images(model):
        from textvae.cli import gallery

        gallery.check_options(args)
        return gallery
    if args.out is not None or args.get("walk") is not None:
        raise UserError("--out and --walk are of images, and this model is of text")
    return None


def _generation(args: Namespace) -> dict[str, object]:
    names = ("temperature", "top_k", "top_p", "num_beams", "max_new_tokens", "allow_unk", "seed")
    return {name: getattr(args, name) for name in names} | {"batch_size": args.batch_size}


def _lines(source: str) -> list[str]:
    from textvae.text.data.readers import decoded_lines, read_lines

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
