"""The exception for errors that the user can fix, and the wording of messages."""


class UserError(Exception):
    """An error that the user can fix: a missing file, a wrong column, an option out of range.

    The message says what is wrong, where (file, line, option), and what to do. The command line
    prints it as one line and exits with status 2; any other exception is a bug and keeps its
    traceback.
    """


def quantity(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 example" and "2,000 examples".

    Args:
        count: How many there are.
        noun: The singular of a noun with a regular plural.
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
