"""The base class of all errors that the user can fix."""


class UserError(Exception):
    """An error that the person running the program can fix. The message says what is wrong, where, and what to do.

    Command-line programs print it without a traceback and exit with status 1.
    """
