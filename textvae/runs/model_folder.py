"""A model folder: everything needed to use a model, and nothing that executes code when loaded.

    config.json         the arguments of the model class
    model.safetensors   the weights; a tensor with two names (tied embeddings) is stored once
    tokenizer.json      the tokenizer of a text model, with tokenizer.model for subwords
    inference.json      how q(z|x) is found
    condition.json      the labels that the model is conditioned on, if it is
    sampler.safetensors the sampler fitted to the aggregate posterior, if there is one
    README.md           the model card
    metrics/test.json   the scores, if the model was evaluated

Files are replaced atomically: after a crash or on a full disk, each is either the old or the new.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from textvae.errors import UserError, did_you_mean, first_line
from textvae.runs.files import expanded, read_record, write_json, write_text
from textvae.runs.markdown import markdown_table

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
INFERENCE, VERSIONS = "inference.json", "versions.json"
SAMPLER, CONDITION = "sampler.safetensors", "condition.json"
HUB_PATTERNS = [CONFIG, WEIGHTS, INFERENCE, SAMPLER, CONDITION]
TOKENIZER_PATTERNS = ["tokenizer.*"]
HUB_PATTERNS += [*TOKENIZER_PATTERNS, "metrics/test.json"]
PACKAGE = __name__.partition(".")[0]
_CARD_MARK = "<!-- written by textvae: remove this line to keep your own text -->"


def metrics_path(run: Path, name: str = "test") -> Path:
    """Return where metrics of a run are saved: those of a split, or of another name."""
    return run / "metrics" / f"{name}.json"


def weights_hash(folder: Path) -> str | None:
    """Return the sha256 of the weights in a folder, which results record; None without any."""
    digest = hashlib.sha256()
    try:
        with (folder / WEIGHTS).open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError:  # whoever needs the weights says what is wrong with them
        return None
    return digest.hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """Read the arguments of a model from ``config.json``.

    Raises:
        UserError: The file is missing, or it is not a JSON object.
    """
    missing = f"no {CONFIG} in {folder}: is this a model folder?"
    return read_record(folder / CONFIG, missing=missing)


def check_names(config: Mapping[str, Any], known: set[str], essential: str, path: Path) -> None:
    """Check that a config describes a model of a given class.

    Args:
        config: The arguments in the file.
        known: The arguments that the class has.
        essential: The argument that only this class has.
        path: The file.

    Raises:
        UserError: It does not.
    """
    if essential not in config:
        raise UserError(f"{path} does not describe a textvae model (no {essential})")
    if foreign := sorted(set(config) - known):
        raise UserError(
            f"{path}: this release of textvae has no option {foreign[0]!r}{written_by(path.parent)}"
        )


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json``."""
    write_json(folder / CONFIG, config)


def written_by(folder: Path) -> str:
    """Return which release of textvae wrote a run, for the end of a message; empty if unknown."""
    try:
        versions = read_record(folder / VERSIONS)
    except UserError:
        return ""
    if not versions.get("textvae"):
        return ""
    commit = f", commit {versions['commit']}" if versions.get("commit") else ""
    return f" (written by textvae {versions['textvae']}{commit})"


def hub_reason(error: Exception) -> str:
    """Return the first line of an error of the Hub's client, without its full stop."""
    return first_line(error).rstrip(".")


def fetch(name: str, **options: Any) -> Path:
    """Return a model folder: ``name`` itself if it is a folder, else a download from the Hub.

    Args:
        name: A folder, or the name of a model on the Hugging Face Hub.
        options: Arguments of ``huggingface_hub.snapshot_download``.

    Raises:
        TypeError: It has no such argument.
        UserError: There is no such folder and the download failed.
    """
    folder = expanded(name)
    if folder.is_dir():
        if options:
            _check_hub_options(options)
        return folder
    if folder.exists():
        raise UserError(f"{name} is a file, not a model folder")
    if folder.is_absolute() or str(name).startswith("."):  # no name on the Hub
        raise UserError(f"{name}: there is no such folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, **{"allow_patterns": HUB_PATTERNS, **options}))
    except Exception as error:  # the Hub's client raises many unrelated types
        raise UserError(
            f"{name!r} is not a folder, and could not be downloaded from the Hugging Face Hub: "
            f"{hub_reason(error)}. Offline? Pass the folder of a model instead"
            f"{did_you_mean(str(name), _models_near(folder))}"
        ) from error


def _models_near(folder: Path) -> list[str]:
    """Return the models in the folder that another one would be in."""
    return [str(path.parent) for path in folder.parent.glob(f"*/{WEIGHTS}")]


def _check_hub_options(options: Mapping[str, Any]) -> None:
    from huggingface_hub import snapshot_download

    unknown = options.keys() - inspect.signature(snapshot_download).parameters.keys()
    if unknown:
        raise TypeError(f"there is no argument {', '.join(sorted(unknown))}")


def public_module(kind: type) -> str:
    """Return where users import a class from: our own ones from the top level."""
    return PACKAGE if is_built_in(kind) else kind.__module__


def is_built_in(kind: type) -> bool:
    """Return whether a class is part of textvae, as opposed to user-defined."""
    return kind.__module__.partition(".")[0] == PACKAGE


class Description(NamedTuple):
    """A description of a model, for its card.

    Attributes:
        title: The heading.
        kind: A sentence that says what the model is.
        module: Where its class is imported from.
        name: The name of its class.
        uses: Lines of Python that use it.
    """

    title: str
    kind: str
    module: str
    name: str
    uses: Sequence[str]


def write_card(
    folder: Path,
    header: str,
    description: Description,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Write the model card, unless a person has written one.

    Args:
        folder: The model folder.
        header: The YAML block for the Hub.
        description: The description of the model.
        config: Its arguments.
        metrics: Its scores, as returned by ``read_metrics``; used if the folder has none of these
            weights.
    """
    path = folder / CARD
    if path.exists() and _CARD_MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    weights = (None, weights_hash(folder))
    known = (scores for scores in (read_metrics(folder), metrics) if scores.get("summary"))
    scores = next((found for found in known if found.get("weights") in weights), {})
    write_text(path, model_card(header, description, config, scores.get("summary", ())))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the scores on the test split; empty if the model was not evaluated."""
    with suppress(UserError):
        return read_record(metrics_path(folder))
    return {}


def model_card(
    header: str,
    description: Description,
    config: Mapping[str, Any],
    scores: Sequence[Sequence[str]],
) -> str:
    """Return the text of README.md: what the model is, how good it is, and how to use it.

    Args:
        header: The YAML block for the Hub.
        description: The description of the model.
        config: Its arguments.
        scores: Rows of name, value, and unit.
    """
    name = description.name
    use = [
        "```python",
        f"from {description.module} import {name}",
        "",
        f'model = {name}.from_pretrained("this folder, or its name on the Hub")',
        *description.uses,
        "```",
    ]
    table = ["## Test split", "", markdown_table([("metric", "value", "unit"), *scores]), ""]
    given = [(name, str(value)) for name, value in config.items()]
    arguments = ["## Arguments", "", markdown_table([("argument", "value"), *given]), ""]
    title = [_CARD_MARK, "", f"# {description.title}", "", description.kind, ""]
    parts = [header.strip(), "", *title, *(table if scores else []), "## Use", "", *use, ""]
    return "\n".join([*parts, *arguments])


def is_number(value: Any) -> bool:
    """Return whether a value is an int or a float, and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
