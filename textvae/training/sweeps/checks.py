"""What must hold before a sweep begins, so that it does not fail after hours of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from textvae.builders.data import build_data, splits_with_labels
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.runs.run_folder import is_run, split_hash
from textvae.training.sweeps.grid import Cell


def check_splits(configs: Sequence[Config], *, evaluate: bool, probe: bool) -> None:
    """Check that there is something to evaluate and to probe, before hours of training.

    Raises:
        UserError: The data has no test split, or no labels; or it can be read only once.
    """
    latent = {_reading(config) for config in configs if config.model.latent_dim}
    for config in {_reading(config): config for config in configs}.values():
        if config.data.dir == "-":
            raise UserError("--data.dir -: every run reads the data, so it must be a file")
        if not (evaluate or probe):
            continue
        labeled = splits_with_labels(config)
        if evaluate and "test" not in labeled:
            place = config.data.dir or config.data.train
            raise UserError(f"{place} has no test split: add one, or use --train-only")
        missing = {name for name in ("train", "test") if not labeled.get(name)}
        if probe and missing and _reading(config) in latent:
            raise UserError(
                f"--probe: {config.data.dir} has no labels ({', '.join(sorted(missing))}): add "
                "them, or leave out --probe"
            )


def _reading(config: Config) -> str:
    """Return everything that decides which examples are read: not how they are batched."""
    return repr(replace(config.data, batch_size=1, max_tokens=None, equal_length=False))


def check_same_data(folder: Path, cells: Sequence[Cell]) -> None:
    """Check that the runs that are there were trained on the data of the sweep.

    Raises:
        UserError: One was trained on other data, or a split has changed since.
    """
    hashes: dict[str, dict[str, str]] = {}
    for cell in cells:
        run, config = folder / cell.name, cell.config
        if not is_run(run):
            continue
        data = _reading(config)
        if data not in hashes:
            splits = build_data(config, run)
            hashes[data] = {name: split.content_hash for name, split in splits.items()}
        for name, found in hashes[data].items():
            if split_hash(run, name) not in (None, found):
                raise UserError(
                    f"{run} was trained with another {name} split than the one in "
                    f"{config.data.dir}: choose another --out, or delete that run"
                )
