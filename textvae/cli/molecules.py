"""``textvae molecules``: metrics of generated molecules, and what a model of SMILES reconstructs.

Needs the extra ``molecules`` (RDKit).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from textvae.cli.given import examples, load
from textvae.cli.options import add_common, add_condition, add_own_model, new_parser
from textvae.config.types import PositiveInt, ThreeOrMore

if TYPE_CHECKING:
    from jsonargparse import Namespace

# The options of each action, with the values that mean "not given".
OF_METRICS: dict[str, Any] = {"train": None, "test": None, "test_scaffolds": None}
OF_METRICS |= {"filters": None, "no_fcd": False, "jobs": 1}
OF_LATENT: dict[str, Any] = {
    "run": None,
    "own_model": None,
    "limit": 2000,
    "lines": 200,
    "steps": 9,
}
OF_LATENT |= {"num_beams": 1, "condition": None, "draw": None}
OF_LATENT |= {"seed": 0, "batch_size": 64, "device": None}


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "compute the metrics of MOSES for generated molecules, or reconstruct molecules",
        "textvae molecules metrics FILE --train TRAIN --test TEST [...]\n"
        "       textvae molecules latent FILE --run RUN [...]",
    )
    add = parser.add_argument
    add(
        "action",
        choices=["metrics", "latent"],
        help="metrics: compare generated molecules with reference sets; latent: reconstruct "
        "molecules, and decode points on lines between them",
    )
    add("file", help="molecules as SMILES: one per line, or a column of a table (.csv, ...)")
    add("--json", action="store_true", help="print the metrics as JSON")
    _add_metrics(parser)
    _add_latent(parser)
    add_common(parser)
    return parser


def _add_metrics(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("options for metrics").add_argument
    add("--train", type=str, help="the training molecules, for Novelty")
    add("--test", type=str, help="the test molecules, for FCD, SNN, Frag, and Scaf")
    add(
        "--test-scaffolds",
        type=str,
        help="test molecules whose scaffolds are not in the training set, for the same",
    )
    add(
        "--filters",
        type=str,
        help="the folder with mcf.csv and wehi_pains.csv; default: that of --test, if it has them",
    )
    add("--no-fcd", action="store_true", help="skip FCD")
    add("--jobs", type=PositiveInt, default=OF_METRICS["jobs"], help="number of processes")


def _add_latent(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("options for latent")
    add = group.add_argument
    add(
        "--run",
        type=str,
        help="a run folder, a saved model, or a model on the Hugging Face Hub",
    )
    add_own_model(group)
    add(
        "--limit",
        type=PositiveInt,
        default=OF_LATENT["limit"],
        help="reconstruct only this many molecules, from the start of the file",
    )
    add(
        "--lines",
        type=PositiveInt,
        default=OF_LATENT["lines"],
        help="number of lines: from the first molecule to the second, from the third to the fourth",
    )
    add(
        "--steps",
        type=ThreeOrMore,
        default=OF_LATENT["steps"],
        help="points on a line, including both ends",
    )
    add(
        "--num-beams",
        type=PositiveInt,
        default=OF_LATENT["num_beams"],
        help="beam width for decoding z; 1 means greedy decoding",
    )
    add_condition(group, "none")
    add("--draw", type=str, metavar="FILE", help="draw the first four lines (.svg)")


def run(args: Namespace) -> None:
    """Compute and print the metrics."""
    from textvae.errors import UserError
    from textvae.runs.files import as_json

    for action, options in (("metrics", OF_METRICS), ("latent", OF_LATENT)):
        given = [name for name, default in options.items() if args[name] != default]
        if given and args.action != action:
            option = given[0].replace("_", "-")
            raise UserError(f"--{option} applies only to textvae molecules {action}")
    found = _metrics(args) if args.action == "metrics" else _latent(args)
    print(as_json(found) if args.json else found)


def _metrics(args: Namespace) -> Any:
    from textvae.evaluation.molecules.metrics import molecule_metrics

    files = {name: args[name] for name in ("train", "test", "test_scaffolds", "filters")}
    return molecule_metrics(args.file, **files, fcd=not args.no_fcd, jobs=args.jobs)


def _latent(args: Namespace) -> Any:
    from textvae.errors import UserError
    from textvae.evaluation.molecules.chemistry import check_rdkit
    from textvae.evaluation.molecules.latent import latent_metrics
    from textvae.evaluation.molecules.reference import read_molecules

    check_rdkit()
    if args.run is None:
        raise UserError("textvae molecules latent needs a model: add --run RUN")
    if args.draw is not None and Path(args.draw).suffix.lower() != ".svg":
        raise UserError(f"--draw {args.draw}: the name must end in .svg")
    model = load(args)
    if model.KIND != "text":
        raise UserError(f"--run {args.run} is an image model: choose a text model of SMILES")
    named = read_molecules(Path(args.file))[: args.limit]
    molecules = examples(model, args, named).inputs  # warns of symbols that the model does not know
    options = {name: args[name] for name in ("lines", "steps", "num_beams", "seed", "batch_size")}
    options["condition"] = args.condition
    return latent_metrics(model, molecules, draw_to=args.draw, **options)
