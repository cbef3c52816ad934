"""Runs and models of an MLflow server as ordinary files.

    import mlflowfs

    with mlflowfs.mount("http://localhost:5000") as root:
        print((root / "models" / "fraud@champion" / "MLmodel").read_text())

    mlflowfs.path("models:/fraud@champion")    # where it can be read on this machine
    mlflowfs.status()                          # of all mounts of this machine

It runs the program mlflowfs, which is installed with it. Where that fails, the exception is an
Error with its sentence.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflowfs._commands import mounts, path, status, unmount
    from mlflowfs._errors import Error, NotFound, ProgramMissing, Refused, UsageError
    from mlflowfs._mount import Mount, mount
    from mlflowfs._program import executable

__all__ = ["Error", "Mount", "NotFound", "ProgramMissing", "Refused", "UsageError",
           "executable", "mount", "mounts", "path", "status", "unmount"]

# Where each is: what a load by the plug-in does not use is not imported for it.
_FROM = {"_commands": ["mounts", "path", "status", "unmount"], "_mount": ["Mount", "mount"], "_program": ["executable"],
         "_errors": ["Error", "NotFound", "ProgramMissing", "Refused", "UsageError"]}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mlflowfs")
    for module, names in _FROM.items():
        if name in names:
            globals()[name] = value = getattr(import_module(f"mlflowfs.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
