"""The grid of a sweep: methods, values of options, and seeds, each combination checked and named.

A value that the files of a stack set anyway is not part of the name. The same experiment therefore
has the same name in every grid, and a grid can be extended by values, options, and seeds.

``own-objective`` and the like can be varied like an option: their values are names of parts of the
user's own, and None, which is what the config asks for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textvae.builders.model import check_model
from textvae.config.arguments import check_integers
from textvae.config.choices import own_option
from textvae.config.combinations import OF_LATENT
from textvae.config.experiment import OPTIONS, Config, check_sections, options_read
from textvae.config.recipes import method_files
from textvae.config.types import as_word
from textvae.errors import UserError, did_you_mean
from textvae.training.own_parts import ARGUMENTS, options_of

OWN = {own_option(part).removeprefix("--"): part for part in ARGUMENTS}
UNREAD = {*OF_LATENT, "own-objective", "own-kl-schedule"}  # by language models
SEED, LATENT_DIM = "train.seed", "model.latent_dim"
Sections = Mapping[str, Mapping[str, Any]]  # values of options by section and name


class Cell(NamedTuple):
    """One run of a grid."""

    name: str  # of its folder
    config: Config
    words: list[str]  # the options of ``textvae train`` that give this config
    method: str  # or, without methods, the names of the files after the base
    varied: dict[str, Any]  # the values of the varied options, such as ``model.latent_dim``
    seed: int
    own_parts: dict[str, str]  # names of the user's own, by part


def make_grid(
    files: Sequence[Path | str],
    *,
    methods: Sequence[str] = (),
    vary: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 1,
    options: Sections | None = None,
    own_parts: Mapping[str, str] | None = None,
) -> list[Cell]:
    """Return every method with every combination of values and every seed.

    Args:
        files: The YAML files that all runs have in common, the base first.
        methods: Stacks of files on top of them, as for ``method_files``.
        vary: Values by option, such as ``{"model.latent_dim": [2, 10]}``.
        seeds: Number of seeds, counted from ``train.seed``.
        options: Options of all runs, by section and name; they override all files.
        own_parts: Parts of the user's own that all runs have, as for ``load_own_parts``.

    Raises:
        UserError: There is no such file or option, a value is out of range or does not fit the
            others, something is given twice, or two runs would have the same name.
    """
    options, methods, own = options or {}, _listed("methods", methods), dict(own_parts or {})
    grid = {option: _listed(option, values) for option, values in (vary or {}).items()}
    _check(files, methods, grid, seeds, options)
    if twice := [option for option in grid if OWN.get(option) in own]:
        raise UserError(f"{twice[0]} is varied with --vary: do not give --{twice[0]} as well")
    cells = []
    stacked = "-".join(Path(file).stem for file in files[1:] or files)  # as a method is named
    for method in methods or [stacked or "run"]:
        stack = [*map(Path, files), *(method_files(files[0], method) if methods else ())]
        base = Config.load(*stack, **options)
        if seeds > 1:
            grid[SEED] = list(range(base.train.seed, base.train.seed + seeds))
        for values in itertools.product(*grid.values()):
            varied = _read_by(base, dict(zip(grid, values, strict=True)), grid, bool(methods))
            if varied is not None:
                cells.append(_cell(method, stack, options, base, varied, own))
    for option in grid:
        if option != SEED and not any(option in cell.varied for cell in cells):
            raise UserError(
                f"{option} is varied, but it applies only to models with a latent variable, and "
                "there is none in this sweep"
            )
    names = [cell.name for cell in cells]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"two runs of the sweep would be named {twice[0]}: use other values, or other names of "
            "your own parts"
        )
    return cells


def _read_by(
    base: Config, varied: dict[str, Any], vary: Mapping[str, Sequence[Any]], is_method: bool
) -> dict[str, Any] | None:
    """Return the values that a run reads; None if the run of other values is the same.

    A language model has no options of a latent variable, so it is trained once for all of them. The
    method file of one remains a language model whatever the size of the others' latent variable is.
    """
    keeps = is_method and not base.model.latent_dim
    if not keeps and varied.get(LATENT_DIM, base.model.latent_dim):
        return varied
    unread = [name for name in varied if name in UNREAD and (keeps or name != LATENT_DIM)]
    if any(varied[name] != vary[name][0] for name in unread):
        return None
    return {name: value for name, value in varied.items() if name not in unread}


def _listed(what: str, values: Any) -> list[Any]:
    """Return the values of a list, of a column of a table, or of a generator as a list."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"{what}: {values!r} must be a list, such as [{values!r}]")
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _check(
    files: Sequence[Path | str],
    methods: list[str],
    vary: Mapping[str, list[Any]],
    seeds: int,
    options: Sections,
) -> None:
    """Check everything that does not depend on a combination of values."""
    check_sections(options)
    lists = [("methods", methods), *vary.items()]
    if methods and not files:
        raise UserError("methods are stacked on a file: give one with --config")
    check_integers(1, seeds=seeds)
    if SEED in vary and seeds > 1:
        raise UserError(f"give either several seeds or values of {SEED}, not both")
    known = [f"{section}.{name}" for section, names in OPTIONS.items() for name in names]
    known += OWN
    for option, values in vary.items():
        section, _, name = option.partition(".")
        if option not in known:
            raise UserError(f"there is no option {option}{did_you_mean(option, known)}")
        if name in options.get(section, {}):
            raise UserError(f"{option} is varied with --vary: do not set it as well")
        if not values:
            raise UserError(f"{option}: give at least one value")
        if option in OWN and not all(value is None or isinstance(value, str) for value in values):
            raise UserError(f"{option}: give parts by name, such as 'my_parts.py:capacity'")
    for what, values in lists:
        if twice := [value for value in values if values.count(value) > 1]:
            raise UserError(f"{what}: {twice[0]} is given twice")
    _check_language_models(files, methods, options)


def _check_language_models(
    files: Sequence[Path | str],
    methods: Sequence[str],
    options: Sections,
) -> None:
    """Check that no option gives the language model of a method file a latent variable."""
    if not options.get("model", {}).get("latent_dim"):
        return
    for method in methods:
        if not Config.load(*files, *method_files(files[0], method)).model.latent_dim:
            raise UserError(
                f"{method} is a language model, and {LATENT_DIM} would make it a VAE: train the "
                "VAEs in a sweep of their own, or set their size in a file given with --config"
            )


def _cell(
    method: str,
    stack: Sequence[Path],
    options: Sections,
    base: Config,
    varied: Mapping[str, Any],
    own_parts: Mapping[str, str],
) -> Cell:
    sections = {section: dict(given) for section, given in options.items()}
    parts, own = [method], dict(own_parts)
    for option, value in varied.items():
        section, _, key = option.partition(".")
        if option in OWN:
            if value is not None:
                own[OWN[option]] = value
                parts.append(value.rpartition(":")[2])
        elif value != getattr(getattr(base, section), key):
            sections.setdefault(section, {})[key] = value
            text = re.sub(r"[^A-Za-z0-9_.+-]", "_", as_word(value))
            parts.append(f"{_short(option, base)}-{text}")
    name, config = "-".join(parts), Config.load(*stack, **sections)
    try:
        check_model(config)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    words = [word for file in stack for word in ("--config", _relative(file))]
    for section, given in sections.items():
        for key, value in given.items():
            words += [f"--{section}.{key}", as_word(value)]
    varied = {option: value for option, value in varied.items() if option != SEED}
    words += options_of(own)
    return Cell(name, config, words, method, varied, config.train.seed, own)


def _short(option: str, base: Config) -> str:
    """Return the name of an option without its section, unless several sections have one."""
    name = option.rpartition(".")[2]
    sections = [section for section, names in options_read(base).items() if name in names]
    return name if len(sections) == 1 else option


def _relative(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)
