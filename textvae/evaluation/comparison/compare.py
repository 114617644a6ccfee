"""Cards side by side as a table for a paper; missing or null metrics are shown as a dash."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textvae.errors import UserError, did_you_mean
from textvae.evaluation.comparison.gains import GAIN, add_gains
from textvae.evaluation.comparison.notes import name_of, notes_on
from textvae.evaluation.comparison.seeds import SEED_SUFFIX, SPREAD, average_cards, experiments_of
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.card_files import (
    INTERVAL,
    check_numbers_of,
    read_cards,
    run_folders,
    saved_splits,
)
from textvae.evaluation.metrics.metric import MISSING, Metric, decimals
from textvae.evaluation.metrics.own import metrics_of
from textvae.runs import run_folder
from textvae.runs.latex import latex_table
from textvae.runs.markdown import markdown_table
from textvae.runs.model_folder import metrics_path


class Table(NamedTuple):
    """Cards side by side: a row of texts for each, starting with its name."""

    metrics: list[Metric]  # one per column after the names
    rows: list[list[str]]
    notes: list[str]  # units, and what the cards do not have in common


def compare(
    runs_or_cards: Sequence[Path | str | Mapping[str, Any]],
    split: str = "test",
    *,
    average_seeds: bool = False,
    baseline: Path | str | Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    latex: bool = False,
) -> str:
    """Return a table in Markdown or LaTeX with one row per run or card, in the order given.

    Below the table are the units, and a warning if the cards were not computed on the same data.

    Args:
        runs_or_cards: Run folders, JSON files with a card, YAML files with a list of published
            rows, or cards.
        split: Which card of a run folder to read.
        average_seeds: Whether runs that differ only in their seed are one row, with the mean and
            the standard deviation of every metric.
        baseline: The run folder, or the card that ``evaluate`` returned, of a model to compare the
            others with, example by example: a column shows the mean difference of the
            importance-weighted bound, with its 95% interval over examples.
        columns: The metrics to show, by their keys, such as ``ppl_iw``; by default the usual ones.
            That of the baseline is added.
        latex: Whether to return a LaTeX ``tabular`` (with the rules of booktabs) instead.

    Raises:
        UserError: There is nothing to compare, a card is missing or broken, there is no such
            metric, or the baseline has no bounds of single examples.
    """
    columns = with_gain([columns] if isinstance(columns, str) else columns, baseline)
    if isinstance(runs_or_cards, str | Path | Mapping):  # a single one
        runs_or_cards = [runs_or_cards]
    cards = gather(runs_or_cards, split, average_seeds=average_seeds, baseline=baseline)
    check_columns(columns, cards)
    if latex:
        table = tabulate(cards, columns)
        header = ["model", *(metric.header for metric in table.metrics)]
        return latex_table([header, *table.rows], table.notes)
    return as_markdown(cards, columns)


def with_gain(columns: Sequence[str] | None, baseline: object) -> Sequence[str] | None:
    """Return the metrics to show, among them the gain over a baseline that was asked for."""
    missing = columns is not None and baseline is not None and GAIN not in columns
    return [*(columns or ()), GAIN] if missing else columns


def check_columns(columns: Sequence[str] | None, cards: Sequence[Mapping[str, Any]]) -> None:
    """Check the metrics that a table of some cards is to show.

    Raises:
        UserError: There is no such metric.
    """
    known = {metric.key: metric for metric in metrics_of(cards)}
    for key in columns or ():
        if key not in known:
            usual = ", ".join(key for key, metric in known.items() if metric.column != "never")
            near = did_you_mean(key, list(known)) or f"; the usual ones are {usual}"
            raise UserError(f"there is no metric {key!r}{near} (see textvae evaluate RUN --json)")


def as_markdown(cards: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return the table that ``compare`` prints, for some cards."""
    table = tabulate(cards, columns)
    header = ["model", *(metric.header for metric in table.metrics)]
    shown = markdown_table([header, *table.rows], right=range(1, len(header)))
    return "\n".join([shown, "", *table.notes]) + "\n"


def tabulate(cards: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Table:
    """Return the table of some cards, as texts.

    Args:
        cards: One for every row.
        columns: The keys of the metrics to show; by default the usual ones.
    """
    known = {metric.key: metric for metric in metrics_of(cards)}
    if columns is not None:
        shown = [known[key] for key in columns]
    else:
        shown = [metric for metric in known.values() if _is_shown(metric, cards)]
    cells = [[_cell(metric, card) for metric in shown] for card in cards]
    rows = [[name_of(card), *row] for card, row in zip(cards, cells, strict=True)]
    return Table(shown, rows, notes_on(cards, shown))


def _is_shown(metric: Metric, cards: Sequence[Mapping[str, Any]]) -> bool:
    if metric.column != "if present":
        return metric.column == "always"
    return any(_cell(metric, card) != MISSING for card in cards)


def gather(
    runs_or_cards: Sequence[Path | str | Mapping[str, Any]],
    split: str = "test",
    *,
    average_seeds: bool = False,
    baseline: Path | str | Mapping[str, Any] | None = None,
) -> list[Card]:
    """Return the cards that ``compare`` shows, given the same arguments."""
    if isinstance(runs_or_cards, (str, Path)):
        runs_or_cards = [runs_or_cards]
    if not isinstance(runs_or_cards, Iterable):
        raise TypeError(f"runs_or_cards must be a list, not {runs_or_cards!r:.50}")
    runs_or_cards = run_folders(runs_or_cards)  # of a generator, too
    if not runs_or_cards:
        raise UserError("nothing to compare: give one or more run folders or cards")
    groups = _grouped(runs_or_cards, split, average_seeds=average_seeds)
    cards = [average_cards(group.cards) for group in groups]
    _tell_apart(cards, [group.folders[-1] if group.folders else None for group in groups])
    if isinstance(baseline, Mapping):
        add_gains(cards, Card.of(baseline))
    elif baseline is not None:
        same = Path(baseline).resolve()
        rows = zip(groups, cards, strict=True)
        own = [card for group, card in rows if same in map(Path.resolve, group.folders)]
        add_gains(cards, own[0] if own else _read_baseline(baseline, split))
    return cards


class _Group(NamedTuple):
    """What becomes one row."""

    cards: list[Card]
    folders: list[Path]  # of the runs


def _grouped(
    runs_or_cards: Sequence[Path | str | Mapping[str, Any]], split: str, *, average_seeds: bool
) -> list[_Group]:
    """Read all cards; those of runs that differ only in their seed are one group if asked for."""
    groups: dict[Any, _Group] = {}
    paths = [given for given in runs_or_cards if not isinstance(given, Mapping)]
    _check_cards(paths, split)
    runs = [path for path in paths if average_seeds and Path(path).is_dir()]
    experiments = dict(zip(runs, experiments_of(runs), strict=True))
    for place, given in enumerate(runs_or_cards):
        if isinstance(given, Mapping):
            check_numbers_of(given)
            groups[place] = _Group([Card.of(given)], [])
            continue
        for row, card in enumerate(read_cards(given, split)):
            group = groups.setdefault(experiments.get(given, (place, row)), _Group([], []))
            group.cards.append(card)
            if Path(given).is_dir():
                group.folders.append(Path(given))
    return list(groups.values())


def _read_baseline(run: Path | str, split: str) -> Card:
    """Read the card of a run that is not in the table; if it was not refined, the plain one."""
    if str(run) and not Path(run).exists():
        run_folder.config_path(Path(run))  # says so, with the nearest name
    if not str(run) or not Path(run).is_dir():
        raise UserError(
            "the baseline must be a run folder, which has the bounds of single examples, not "
            f"{str(run)!r}"
        )
    plain = re.sub(r"-refine\d+", "", split)
    name = split if metrics_path(Path(run), split).exists() else plain
    card = read_cards(run, name)[0]
    card["model"] = f"{run} (from earlier weights)" if card.get("stale") else str(run)
    return card


def _check_cards(paths: Sequence[Path | str], split: str) -> None:
    """Name all runs without a card at once, rather than the first one only."""
    runs = [Path(path) for path in paths if run_folder.is_run(Path(path))]
    lacking = [run for run in runs if not metrics_path(run, split).exists()]
    if len(lacking) > 1:
        raise UserError(
            f"{len(lacking)} of {len(runs)} runs have no metrics for {split!r}: "
            f"{', '.join(map(str, lacking))}; create them with textvae evaluate, or leave them out"
            f"{did_you_mean(split, saved_splits(lacking[0]))}"
        )


def _tell_apart(cards: Sequence[Card], folders: Sequence[Path | str | None]) -> None:
    """Name runs by their path if they have the same name."""
    counts = Counter(name_of(card) for card in cards)
    for card, folder in zip(cards, folders, strict=True):
        name = name_of(card)
        if folder is not None and counts[name] > 1:
            card["model"] = _with_path(name, folder)


def _with_path(name: str, folder: Path | str) -> str:
    """Return the name of a card with the path of its run, or of one of its seeds, in front."""
    path, own = str(folder).rstrip("/"), Path(folder).resolve().name
    for seed in ("", *re.findall(SEED_SUFFIX, own)):
        rest = name.removeprefix(own.removesuffix(seed))
        if rest != name and not rest[:1].isalnum():  # nothing, or how it was evaluated
            return path.removesuffix(seed) + rest
    return f"{path} ({name})"  # it was moved since


def _cell(metric: Metric, card: Mapping[str, Any]) -> str:
    if metric.key + SPREAD in card:  # the mean of counts is not a count
        metric = metric._replace(error=metric.key + SPREAD, digits=max(metric.digits, 1))
    elif metric.section == "latent":  # its standard error is shown only on the card
        metric = metric._replace(error=None)
    encoder = metric.show_encoder(card) if metric.needs_latent else MISSING
    shown = metric.show(card) + ("" if encoder == MISSING else f" ({encoder})")
    if metric.key == GAIN and shown != MISSING and (ends := card.get(INTERVAL)):
        return f"{shown} [{', '.join(decimals(end, metric.digits) for end in ends)}]"
    return shown
