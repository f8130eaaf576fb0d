"""Errors that a person can act on: each message is one line that says what to do next."""


class FromnoiseError(Exception):
    """Something went wrong while working; the command line prints the message and exits with 1."""

    exit_code = 1


class UsageError(FromnoiseError):
    """The request itself can't be met (bad size, unknown sampler, unreadable picture); exits with 2."""

    exit_code = 2
