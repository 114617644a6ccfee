"""The options of every command, and one clear line for those that are wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from textvae.config import Config
from textvae.errors import UserError

set_parsing_settings(docstring_parse_attribute_docstrings=True)
EXAMPLES = """examples:
  textvae train --config recipes/toy/skip_vae.yaml --out runs/skip --data.dir my_texts
  textvae evaluate runs/skip          textvae sample runs/skip -n 10
  textvae train --resume runs/skip    textvae compare runs/vae runs/skip
"""


def parse(argv: Sequence[str]) -> tuple[str, Namespace]:
    """The command and its options.

    Raises:
        UserError: an unknown option or a wrong value, with the nearest valid name.
    """
    parser, commands = build_parser()
    if not argv:
        parser.print_help()
        raise SystemExit(0)
    try:
        args = parser.parse_args(_with_run_config(list(argv)))
    except ArgumentError as error:
        command = argv[0] if argv[0] in commands else None
        raise UserError(_explain(str(error), commands, command)) from None
    command = args.subcommand
    return command, args[command]


def config_of(args: Namespace) -> Config:
    """The experiment in the options of ``train``."""
    _, commands = build_parser()
    fields = Namespace({name: args[name] for name in asdict(Config())})
    return Config(**vars(commands["train"].instantiate(fields)))


def run_config(run: Path, data_dir: str | None = None) -> Config:
    """The experiment of a run folder, perhaps with its corpus at another place.

    Raises:
        UserError: it is no run folder, or its config is broken.
    """
    other = ["--data.dir", data_dir] if data_dir is not None else []
    _, args = parse(["train", "--resume", str(run), *other])
    return config_of(args)


def _with_run_config(argv: list[str]) -> list[str]:
    """A resumed run starts from its own config; options given beside --resume come after it."""
    if argv[:1] != ["train"]:
        return argv
    for i, word in enumerate(argv):
        name, _, value = word.partition("=")
        if name == "--resume":
            run = value or (argv[i + 1] if i + 1 < len(argv) else "")
            config = Path(run) / "config.yaml"
            if not run or run.startswith("-"):
                raise UserError("--resume needs the folder of the run to continue")
            if not config.exists():
                raise UserError(
                    f"{run} is no run folder (it has no config.yaml): nothing to resume"
                )
            return ["train", "--config", str(config), *argv[1:]]
    return argv


def build_parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The whole command line, and the parser of each command."""
    import textvae

    parser = ArgumentParser(
        prog="textvae",
        description="Text variational autoencoders whose latent variable is really used.",
        epilog=EXAMPLES,
        exit_on_error=False,
        version=textvae.__version__,
    )
    subcommands = parser.add_subcommands(required=True, dest="subcommand")
    commands = {name: build() for name, build in PARSERS.items()}
    for name, command in commands.items():
        subcommands.add_subcommand(name, command, help=command.description)
    return parser, commands


def _parser(description: str) -> ArgumentParser:
    return ArgumentParser(description=description, exit_on_error=False)


def _train() -> ArgumentParser:
    parser = _parser("train a language model, a VAE or a Skip-VAE into a run folder")
    parser.add_argument("--config", action="config", help="a YAML file: any of the fields below")
    parser.add_argument("--out", type=str | None, help="the run folder to make")
    parser.add_argument("--resume", type=str | None, help="the run folder to continue")
    parser.add_class_arguments(Config, as_group=False)
    return parser


def _add_run(parser: ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder, a saved model, or a model on the hub")


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="same seed, same output")
    parser.add_argument("--batch-size", type=int, default=64, help="sentences at once")
    parser.add_argument(
        "--device", type=str | None, help="cpu, cuda, …; by default the best there is"
    )


def _add_generation(parser: ArgumentParser, num_beams: int = 1) -> None:
    add = parser.add_argument
    add("--temperature", type=float, default=1.0, help="below 1: likelier words; above: bolder")
    add("--top-k", type=int, default=0, help="sample among the k likeliest words; 0: among all")
    add("--top-p", type=float, default=1.0, help="sample among the likeliest words of this mass")
    add("--num-beams", type=int, default=num_beams, help="beam search with so many beams")
    add("--max-new-tokens", type=int | None, help="longest sentence; by default as in training")
    add("--allow-unk", action="store_true", help="let <unk> be generated")
    add("--format", choices=["text", "jsonl"], default="text", help="one sentence a line, or JSON")
    _add_common(parser)


def _evaluate() -> ArgumentParser:
    parser = _parser("print and save the metrics card of a run")
    _add_run(parser)
    parser.add_argument("--split", default="test", help="which split of the run's corpus")
    parser.add_argument(
        "--samples", type=int, default=200, help="K of the importance-weighted bound; 0: none"
    )
    parser.add_argument("--data", type=str | None, help="another place of the corpus")
    parser.add_argument("--limit", type=int | None, help="only the first so many sentences")
    parser.add_argument(
        "--generations",
        type=int,
        default=500,
        help="sentences for BLEU, distinct-n and self-BLEU; 0: none",
    )
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="of matrix products"
    )
    parser.add_argument("--json", action="store_true", help="print the card as JSON")
    _add_common(parser)
    return parser


def _sample() -> ArgumentParser:
    parser = _parser("sentences from z ~ N(0, I)")
    _add_run(parser)
    parser.add_argument("-n", type=int, default=10, help="how many")
    parser.add_argument("--greedy", action="store_true", help="the likeliest word at every step")
    _add_generation(parser)
    return parser


def _reconstruct() -> ArgumentParser:
    parser = _parser("encode sentences and decode them again")
    _add_run(parser)
    parser.add_argument("texts", nargs="*", help="sentences; without them --file or standard input")
    parser.add_argument("--file", type=str | None, help="a file with one sentence a line")
    parser.add_argument(
        "--use", choices=["mean", "sample"], default="mean", help="which z of q(z|x)"
    )
    parser.add_argument("--do-sample", action="store_true", help="sample words; by default greedy")
    parser.add_argument("--show-source", action="store_true", help="the source above each sentence")
    _add_generation(parser)
    return parser


def _interpolate() -> ArgumentParser:
    parser = _parser("sentences on the way from one sentence to another")
    _add_run(parser)
    parser.add_argument("a", help="the first sentence")
    parser.add_argument("b", help="the last sentence")
    parser.add_argument(
        "--steps", type=int, default=7, help="points on the way, both ends included"
    )
    parser.add_argument("--kind", choices=["linear", "spherical"], default="linear", help="the way")
    parser.add_argument("--do-sample", action="store_true", help="sample words; by default greedy")
    _add_generation(parser)
    return parser


def _encode() -> ArgumentParser:
    parser = _parser("posterior means and log variances of the sentences in a file")
    _add_run(parser)
    parser.add_argument("file", help="one sentence a line; - for standard input")
    parser.add_argument("--out", required=True, help="a .npz or .parquet file")
    _add_common(parser)
    return parser


def _decode() -> ArgumentParser:
    parser = _parser("sentences for latent vectors in a file")
    _add_run(parser)
    parser.add_argument("file", help="a .npz or .parquet file with mean (N, Z), as encode writes")
    parser.add_argument("--do-sample", action="store_true", help="sample words; by default greedy")
    _add_generation(parser)
    return parser


def _compare() -> ArgumentParser:
    parser = _parser("the paper's table of several runs, as Markdown")
    parser.add_argument("runs", nargs="+", help="run folders, or JSON files holding a metrics card")
    parser.add_argument("--split", default="test", help="which split's card")
    parser.add_argument(
        "--provenance", action="store_true", help="also commands, seeds, commits, machine and cost"
    )
    return parser


PARSERS = {
    "train": _train,
    "evaluate": _evaluate,
    "compare": _compare,
    "sample": _sample,
    "reconstruct": _reconstruct,
    "interpolate": _interpolate,
    "encode": _encode,
    "decode": _decode,
}


def _explain(message: str, commands: dict[str, ArgumentParser], command: str | None) -> str:
    """jsonargparse's message on one line, with the nearest valid name if a name is wrong."""
    line = " ".join(message.split())
    line = re.sub(r"^error: |Parser key ", "", line)
    names = list(commands)
    if command is not None:
        names = [a.dest for a in commands[command]._actions if a.dest != "help"]
    for wrong in _unknown_names(line):
        near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.4)
        last = {name.rsplit(".", 1)[-1]: name for name in names}
        near = near or [last[n] for n in difflib.get_close_matches(wrong, last, n=1)]
        if near:
            line += f"; did you mean {near[0]}?"
    where = f"textvae {command} --help" if command else "textvae --help"
    return f"{line} (see {where})"


def _unknown_names(line: str) -> list[str]:
    group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", line)
    if group:
        return [f"{group[1]}.{group[2]}"]
    if "nrecognized arguments" in line:
        return [word.lstrip("-").partition("=")[0] for word in re.findall(r"--[\w.-]+\S*", line)]
    other = re.search(r"(?:does not accept|invalid choice:|[Uu]nknown).*?'([\w.-]+)'", line)
    return [other[1]] if other else []
