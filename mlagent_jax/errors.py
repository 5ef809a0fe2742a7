"""The base of every error that is the user's to mend."""


class UserError(Exception):
    """Something that the person running this can put right: one sentence with what, which value, and the remedy.

    Command-line programs print it without a traceback and exit with status 1.
    """
