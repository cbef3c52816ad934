"""What the program says when it fails, as exceptions."""

from __future__ import annotations


class Error(Exception):
    """The program failed; str() is its sentence."""


class UsageError(Error, ValueError):
    """It was asked for what can't be: a setting that is none, a value that is wrong."""


class NotFound(Error, FileNotFoundError):
    """There is no such run, model, file or store."""


class Refused(Error, PermissionError):
    """The server, or a store, refuses the credentials."""


class ProgramMissing(Error):
    """The program mlflowfs is not where this package looks for it."""


for _exception in Error, UsageError, NotFound, Refused, ProgramMissing:
    _exception.__module__ = "mlflowfs"  # as users know them

_BY_CODE = {2: UsageError, 3: NotFound, 4: Refused}


def error_of(code: int, sentence: str) -> Error:
    """The exception for an exit code of the program and its sentence."""
    if not sentence:
        sentence = f"mlflowfs was ended by signal {-code}" if code < 0 else f"mlflowfs ended with exit code {code}"
    return _BY_CODE.get(code, Error)(sentence)
