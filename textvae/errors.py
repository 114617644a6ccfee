"""The one exception for a mistake of the user's."""


class UserError(Exception):
    """A mistake the user can mend: a missing file, a wrong column, an option out of range.

    The message says what is wrong, where (file, line, option) and what to do. The command
    line prints it as one line and exits with status 2; everything else is a bug and keeps
    its traceback.
    """
