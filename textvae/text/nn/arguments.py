"""Checks of the arguments of a module, which may be built without a config."""

from __future__ import annotations

from textvae.errors import UserError


def check_sizes(where: str, **sizes: tuple[int, int]) -> None:
    """Check values that have a minimum, given by name with it.

    Raises:
        UserError: One is too small.
    """
    for name, (value, least) in sizes.items():
        if value < least:
            raise UserError(f"{where}: {name}={value}: must be at least {least}")


def check_shares(where: str, **shares: float) -> None:
    """Check rates of dropout, given by name.

    Raises:
        UserError: One is not in [0, 1).
    """
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise UserError(f"{where}: {name}={value}: must be at least 0 and below 1")


def check_choice(where: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check a value that is one of several.

    Raises:
        UserError: It is none of them.
    """
    if value not in choices:
        raise UserError(f"{where}: {name}={value!r}: must be one of {', '.join(choices)}")
