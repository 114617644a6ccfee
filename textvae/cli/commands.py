"""The parser of each command: its options and what they mean."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from textvae.config.experiment import Config

set_parsing_settings(docstring_parse_attribute_docstrings=True)
EXAMPLES = """examples:
  textvae train --config recipes/toy/skip_vae.yaml --out runs/skip --data.dir my_texts
  textvae evaluate runs/skip          textvae sample runs/skip -n 10
  textvae train --resume runs/skip    textvae compare runs/vae runs/skip
"""


def build_parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The whole command line, and the parser of each command."""
    import textvae

    parser = ArgumentParser(
        prog="textvae",
        description="Text variational autoencoders whose latent variable is really used.",
        epilog=EXAMPLES,
        exit_on_error=False,
        formatter_class=_Help,
        version=textvae.__version__,
    )
    subcommands = parser.add_subcommands(required=True, dest="subcommand")
    commands = {name: build() for name, build in PARSERS.items()}
    for name, command in commands.items():
        subcommands.add_subcommand(name, command, help=command.description)
    return parser, commands


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Help whose examples keep their lines."""


def _parser(description: str, **options: str) -> ArgumentParser:
    return ArgumentParser(
        description=description, exit_on_error=False, formatter_class=_Help, **options
    )


def _train() -> ArgumentParser:
    parser = _parser(
        "train a language model, a VAE or a Skip-VAE into a run folder",
        usage="textvae train --config FILE --out FOLDER [--data.dir PLACE] [--SECTION.NAME VALUE]\n"
        "       textvae train --resume FOLDER [--SECTION.NAME VALUE]",
    )
    parser.add_argument("--config", action="config", help="a YAML file: any of the fields below")
    parser.add_argument("--out", type=str | None, help="the run folder to make")
    parser.add_argument("--resume", type=str | None, help="the run folder to continue")
    parser.add_class_arguments(Config, as_group=False)
    return parser


def _add_run(
    parser: ArgumentParser, what: str = "a run folder, a saved model, or a model on the hub"
) -> None:
    parser.add_argument("run", help=what)


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
    add("--out", type=str | None, help="of images: the .png file to draw them into")
    _add_common(parser)


def _add_refinement(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--refine-steps",
        type=int | None,
        help="gradient steps on the ELBO that refine q(z|x); by default as in training, 0: none",
    )


def _evaluate() -> ArgumentParser:
    parser = _parser("print and save the metrics card of a run")
    _add_run(parser, "a run folder")
    parser.add_argument("--split", default="test", help="which split of the run's corpus")
    parser.add_argument(
        "--samples",
        type=int,
        default=200,
        help="K of the importance-weighted bound; 0: none",
    )
    _add_refinement(parser)
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


def _add_do_sample(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--do-sample",
        action="store_true",
        help="draw words, or pixels (of a PixelCNN the likeliest ones alone are often all black); "
        "by default greedy",
    )


def _sample() -> ArgumentParser:
    parser = _parser("sentences, or images, from z ~ N(0, I)")
    _add_run(parser)
    parser.add_argument("-n", type=int, default=10, help="how many")
    parser.add_argument(
        "--greedy",
        action="store_true",
        help="the likeliest word at every step; of images, no draw of pixels",
    )
    parser.add_argument(
        "--walk",
        type=int | None,
        help="of images with a latent of 2 dimensions: so many squared, over the prior's quantiles",
    )
    _add_generation(parser)
    return parser


def _reconstruct() -> ArgumentParser:
    parser = _parser("encode sentences, or images, and decode them again")
    _add_run(parser)
    parser.add_argument(
        "texts",
        nargs="*",
        help="sentences; without them --file or standard input. Of images, their numbers in the "
        "test split; by default the first 30",
    )
    parser.add_argument("--file", type=str | None, help="a file with one sentence a line")
    parser.add_argument(
        "--use", choices=["mean", "sample"], default="mean", help="which z of q(z|x)"
    )
    _add_do_sample(parser)
    parser.add_argument("--show-source", action="store_true", help="the source above each sentence")
    _add_refinement(parser)
    _add_generation(parser)
    return parser


def _interpolate() -> ArgumentParser:
    parser = _parser("sentences on the way from one sentence to another, or images likewise")
    _add_run(parser)
    parser.add_argument("a", help="the first sentence; the number of an image in the test split")
    parser.add_argument("b", help="the last sentence; the number of an image in the test split")
    parser.add_argument(
        "--steps", type=int, default=7, help="points on the way, both ends included"
    )
    parser.add_argument("--kind", choices=["linear", "spherical"], default="linear", help="the way")
    _add_refinement(parser)
    _add_do_sample(parser)
    _add_generation(parser)
    return parser


def _encode() -> ArgumentParser:
    parser = _parser("posterior means and log variances of the sentences, or images, in a file")
    _add_run(parser)
    parser.add_argument(
        "file", help="one sentence a line; - for standard input; of images, an .npz file"
    )
    parser.add_argument("--out", required=True, help="a .npz or .parquet file")
    _add_refinement(parser)
    _add_common(parser)
    return parser


def _decode() -> ArgumentParser:
    parser = _parser("sentences for latent vectors in a file")
    _add_run(parser)
    parser.add_argument("file", help="a .npz or .parquet file with mean (N, Z), as encode writes")
    _add_do_sample(parser)
    _add_generation(parser)
    return parser


def _probe() -> ArgumentParser:
    parser = _parser("how well labels can be read from posterior means: two classifiers")
    _add_run(parser, "a run folder")
    parser.add_argument("--split", default="test", help="which split is scored")
    parser.add_argument("--data", type=str | None, help="another place of the corpus")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    _add_refinement(parser)
    _add_common(parser)
    return parser


def _map() -> ArgumentParser:
    parser = _parser("draw posterior means in two dimensions (t-SNE), coloured by label")
    _add_run(parser, "a run folder")
    parser.add_argument("--out", required=True, help="the .png file to write")
    parser.add_argument("--split", default="test", help="which split is drawn")
    parser.add_argument("--data", type=str | None, help="another place of the corpus")
    parser.add_argument("--limit", type=int, default=2000, help="only the first so many examples")
    _add_refinement(parser)
    _add_common(parser)
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
    "probe": _probe,
    "map": _map,
}
