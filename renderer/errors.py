"""Errors that are shown to the user as one message, each with the exit code of the command line."""

from __future__ import annotations


class AnchorfieldError(Exception):
    """Something the user can act on: the message says what was expected, what came, and what to do."""

    exit_code = 1


class UsageError(AnchorfieldError):
    """A setting or argument is unknown or out of range."""

    exit_code = 2


class DataError(AnchorfieldError):
    """A file or capture cannot be used; the message names it."""

    exit_code = 3


class OutOfMemory(AnchorfieldError):
    """The work does not fit into memory."""

    exit_code = 4


class MissingBackend(AnchorfieldError):
    """An optional backend was asked for and is not installed or does not run here."""

    exit_code = 5
