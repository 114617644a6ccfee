"""A whole experiment: frozen sections of options, written as YAML and read back.

Some options apply to only one kind of data: those for the other kind must keep their defaults and
are left out of the YAML.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from textvae.config.inference import Inference
from textvae.config.sections import (
    DataConfig,
    ImagesConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TokenizerConfig,
    TrainConfig,
)
from textvae.config.types import check_values
from textvae.config.yaml_file import Dumper, Setting, read_yaml
from textvae.errors import UserError, did_you_mean
from textvae.runs.files import write_text

__all__ = [
    "OPTIONS",
    "Config",
    "DataConfig",
    "ImagesConfig",
    "Inference",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "TokenizerConfig",
    "TrainConfig",
    "config_from",
    "options_read",
    "read_options",
]


@dataclass(frozen=True)
class Config:
    """One experiment."""

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    inference: Inference = field(default_factory=Inference)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def encoder_section(self) -> str:
        """The name of the section with the options of the encoder."""
        return "images" if self.data.kind == "images" else "model"

    @classmethod
    def load(cls, *paths: Path | str, **sections: Mapping[str, Any]) -> Config:
        """Read a stack of YAML files; if several set an option, the last one wins.

        Example:
            >>> Config.load("base.yaml", "skip_vae.yaml", data={"dir": "my_texts.txt"})

        Args:
            paths: The files.
            sections: Options that override those of the files, by section.

        Raises:
            UserError: A file cannot be read, or an option is unknown or out of range; the message
                names the file and the line.
        """
        check_sections(sections)
        options = read_options(paths, kind=sections.get("data", {}).get("kind"))
        for section, given in sections.items():
            texts = {k: str(v) if isinstance(v, os.PathLike) else v for k, v in given.items()}
            options.setdefault(section, {}).update(texts)
        config = config_from(options)
        config.check()
        return config

    def save(self, path: Path | str) -> None:
        """Write the complete experiment as YAML, for ``load`` and ``--config`` to read."""
        write_text(Path(path), self.to_yaml())

    def to_yaml(self) -> str:
        """Return the experiment as YAML: every option that applies to its kind of data."""
        everything = asdict(self)
        applying = {
            section: {name: everything[section][name] for name in names}
            for section, names in options_read(self).items()
        }
        return yaml.dump(applying, Dumper=Dumper, sort_keys=False, allow_unicode=True)

    def check(self, prefix: str = "") -> None:
        """Check the type and the range of every option; the model checks combinations of options.

        Args:
            prefix: Put before option names in messages, such as ``--`` on the command line.

        Raises:
            UserError: An option has the wrong type, is out of range, or does not apply to this kind
                of data.
        """
        for section, types in OPTIONS.items():
            if not isinstance(getattr(self, section), SECTIONS[section]):
                given = f"{section}={getattr(self, section)!r:.100}"
                raise UserError(f"{given}: use Config.load({section}={{...}})")
            check_values(types, vars(getattr(self, section)), f"{prefix}{section}.")
        read, defaults = options_read(self), Config()
        for section in OPTIONS:
            for name, value in vars(getattr(self, section)).items():
                unread = name not in read.get(section, ())
                if unread and value != getattr(getattr(defaults, section), name):
                    raise UserError(_does_not_apply(f"{prefix}{section}.{name}", self.data.kind))


# The options of the section ``model`` that apply to every kind of data.
OF_ANY_MODEL = (
    *("latent_dim", "injection", "head", "head_scale", "posterior", "kappa"),
    *("prior", "prior_components", "condition", "condition_dim"),
)
# The options of the section ``data`` that say how a text corpus is laid out in files.
LAYOUT = ("format", "text_column", "label_column", "labels", "delimiter", "header")
OF_TEXT_FILES = ("train", "valid", "test", *LAYOUT)
# Of the section data: where the corpus is, which hashes know by its content.
PLACES = ("dir", "train", "valid", "test", "cache_dir")
SECTIONS: dict[str, type] = get_type_hints(Config)
OPTIONS: dict[str, dict[str, Any]] = {
    name: get_type_hints(section) for name, section in SECTIONS.items()
}


def check_sections(sections: Mapping[str, Any]) -> None:
    """Check that options by section have the right form and known names.

    Raises:
        UserError: There is no such section or option, or a section is no mapping.
    """
    for section, given in sections.items():
        _check_names(section, given)


def _check_names(section: str, given: Mapping[str, Any]) -> None:
    if section not in OPTIONS:
        raise UserError(f"there is no section {section!r}{did_you_mean(section, OPTIONS)}")
    if not isinstance(given, Mapping):
        raise UserError(
            f"{section}={given!r}: must be a mapping from the names of options to values"
        )
    for name in given:
        if name not in OPTIONS[section]:
            near = did_you_mean(str(name), OPTIONS[section], f"{section}.")
            raise UserError(f"there is no option {section}.{name}{near}")


def options_read(config: Config) -> dict[str, tuple[str, ...]]:
    """Return the names of the options that apply to the experiment's kind of data, by section."""
    return _options_of(config.data.kind)


def option_names(options: Mapping[str, Iterable[str]]) -> list[str]:
    """Return options by section as ``section.name``."""
    return [f"{section}.{name}" for section, names in options.items() for name in names]


def _options_of(kind: str) -> dict[str, tuple[str, ...]]:
    names = {section: tuple(options) for section, options in OPTIONS.items()}
    if kind == "text":
        return {section: options for section, options in names.items() if section != "images"}
    del names["tokenizer"]
    inference = tuple(name for name in names["inference"] if name != "token_share")
    return names | {
        "data": ("dir", "kind", "batch_size"),
        "model": OF_ANY_MODEL,
        "inference": inference,
    }


def config_from(options: dict[str, dict[str, Any]]) -> Config:
    """Return the experiment with these options, by section; all others keep their defaults."""
    return Config(**{name: SECTIONS[name](**given) for name, given in options.items()})


def read_options(paths: Sequence[Path | str], kind: str | None = None) -> dict[str, dict[str, Any]]:
    """Read the options in a stack of YAML files, by section; later files override earlier ones.

    A file that does not set the kind of data, such as the recipe for a method, may contain options
    for both kinds: those for the other kind are ignored.

    Args:
        paths: The files.
        kind: The kind of data, if it differs from the one in the files.

    Raises:
        UserError: A file cannot be read, an option is unknown or out of range, or nothing in a file
            applies to this kind of data.
    """
    files = [read_yaml(Path(path), OPTIONS) for path in paths]
    named = [setting.value for file in files for setting in file if _is_kind(setting)]
    kind = kind or [DataConfig().kind, *named][-1]
    merged: dict[str, dict[str, Any]] = {"data": {"kind": kind}}
    for file in files:
        for setting in _applying(file, kind):
            merged.setdefault(setting.section, {})[setting.name] = setting.value
    return merged


def _applying(file: Sequence[Setting], kind: str) -> list[Setting]:
    read = _options_of(kind)
    applying = [setting for setting in file if setting.name in read.get(setting.section, ())]
    if len(applying) < len(file) and (not applying or any(map(_is_kind, file))):
        lost = next(setting for setting in file if setting not in applying)
        raise UserError(_does_not_apply(f"{lost.where}: {lost.section}.{lost.name}", kind))
    return applying


def _is_kind(setting: Setting) -> bool:
    return (setting.section, setting.name) == ("data", "kind")


def _does_not_apply(option: str, kind: str) -> str:
    return f"{option} does not apply if --data.kind is {kind}: leave it out"
