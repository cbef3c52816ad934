"""Where the program is, and how it is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from typing import Iterator, Mapping, Optional

from mlflowfs._errors import Error, ProgramMissing, error_of

_NAME = "mlflowfs"


def executable() -> str:
    """The path of the program mlflowfs.

    It is $MLFLOWFS_PROGRAM; else the one that was installed with this package; else
    one on PATH. Raises ProgramMissing where there is none.
    """
    named = os.environ.get("MLFLOWFS_PROGRAM")
    if named:
        if _runs(named):
            return named
        raise ProgramMissing(f"MLFLOWFS_PROGRAM is {named}, which is no program")
    for directory in _script_directories():
        path = os.path.join(directory, _NAME)
        if _runs(path):
            return path
    found = shutil.which(_NAME)
    if found:
        return found
    raise ProgramMissing("the program mlflowfs is not found: install the package again with pip, or set MLFLOWFS_PROGRAM to its path")


def _runs(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _script_directories() -> Iterator[str]:
    """Where pip puts scripts: what lies by this package first, whatever Python runs."""
    packages = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    yield os.path.join(packages, "bin")  # pip install --target
    # lib/python3.X/site-packages of a venv, of --prefix, of --user
    yield os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(packages))), "bin")
    yield sysconfig.get_path("scripts")
    if sys.version_info >= (3, 10):
        yield sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user"))
    else:
        yield sysconfig.get_path("scripts", scheme="posix_user")


def failed(program: str, why: OSError) -> Error:
    return Error(f"{program} can't be run: {why.strerror}")


def output(*args: str, env: Optional[Mapping[str, str]] = None) -> str:
    """What the program prints. What it warns of goes to standard error, why it fails into an exception."""
    program = executable()
    try:
        done = subprocess.run([program, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, **(env or {})}, encoding="utf-8", errors="surrogateescape")
    except OSError as why:
        raise failed(program, why) from why
    warned, sentence = done.stderr, ""
    if done.returncode != 0:
        before, at, sentence = ("\n" + done.stderr).rpartition("\nmlflowfs: ")
        warned, sentence = (before[1:], sentence.strip()) if at else ("", done.stderr.strip())
    if warned:
        print(warned.rstrip("\n"), file=sys.stderr)
    if done.returncode != 0:
        raise error_of(done.returncode, sentence)
    return done.stdout
