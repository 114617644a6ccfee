"""The exception for errors that the user can fix."""


class UserError(Exception):
    """An error that the user can fix: a missing file, a wrong column, an option out of range.

    The message says what is wrong, where (file, line, option), and what to do. The command line
    prints it as one line and exits with status 2; any other exception is a bug and keeps its
    traceback.
    """
