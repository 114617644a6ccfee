"""Recipes: where they are, and the files that a method stacks on a base.

They are part of the repository. An installed package has the methods only, in a folder of its own.
"""

from __future__ import annotations

from pathlib import Path

from textvae.errors import UserError, did_you_mean

CHECKOUT = Path(__file__).resolve().parents[2] / "recipes"  # if the package was not copied away
PACKAGED = Path(__file__).resolve().parents[1] / "methods"  # the same methods: see setup.py


def methods_folder() -> Path:
    """Return the folder with the methods, in a checkout or in an installed package."""
    folder = CHECKOUT / "methods"
    return folder if folder.is_dir() else PACKAGED


def recipes_folder(given: Path | str | None = None) -> Path:
    """Return the folder with the recipes, which are not part of the package.

    Args:
        given: The folder; by default the one next to the package in a checkout.

    Raises:
        UserError: There is none.
    """
    folder = CHECKOUT if given is None else Path(given)
    if not (folder / "methods").is_dir():
        raise UserError(
            f"{folder} is not the recipes folder, which is part of the repository and not of the "
            "installed package: clone the repository, and give its folder recipes with --recipes"
        )
    return folder


def method_files(base: Path | str, method: str) -> list[Path]:
    """Return the YAML files that a method stacks on a base, in order.

    ``skip_vae-free_bits`` is skip_vae.yaml and free_bits.yaml. Each of them is looked for in a
    folder of methods (``methods`` next to the folder of the base, or else the one of the recipes),
    and in the folder of the base. If both exist, both are stacked: the second one says what the
    method needs on this data.

    Args:
        base: The first file of the stack.
        method: Names of files, joined by hyphens.

    Raises:
        UserError: There is no file for one of the names.
    """
    here = Path(base).absolute().parent
    methods = (here.parent / "methods", methods_folder())
    folders = [*[folder for folder in methods if folder.is_dir()][:1], here]
    files: list[Path] = []
    for name in method.split("-"):
        found = [
            folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()
        ]
        if not found:
            known = {file.stem for folder in folders for file in folder.glob("*.yaml")}
            raise UserError(
                f"method {method}: there is no {name}.yaml in {' or '.join(map(str, folders))}"
                f"{did_you_mean(name, known)}"
            )
        files += found
    return files
