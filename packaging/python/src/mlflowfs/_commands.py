"""The program's commands that end by themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Optional, Union, overload

from mlflowfs._errors import UsageError
from mlflowfs._program import output

StrPath = Union[str, "os.PathLike[str]"]


def servers(tracking_uri: Optional[StrPath], registry_uri: Optional[StrPath]) -> dict[str, str]:
    """The variables that name them. They may hold a password, which a command line would show."""
    named = {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_REGISTRY_URI": registry_uri}
    return {variable: os.fspath(uri) for variable, uri in named.items() if uri is not None}


def path(uri: Optional[str] = None, *, run_id: Optional[str] = None, artifact_path: Optional[str] = None,
         tracking_uri: Optional[StrPath] = None, registry_uri: Optional[StrPath] = None) -> Path:
    """Where an artifact can be read on this machine.

    It is named by a URI, such as models:/fraud@champion or runs:/<run_id>/model, or by
    run_id and, below that, artifact_path. The path is on a live mount of the same
    server where there is one, else of a read-only copy in the cache.
    """
    if (uri is None) == (run_id is None):
        raise UsageError("path() takes a URI, or run_id: one of them")
    if uri is not None:
        if artifact_path is not None:
            raise UsageError("path() takes artifact_path with run_id alone: a URI has its own path")
        named = ["--", uri]
    else:
        named = [f"--run-id={run_id}"]
        if artifact_path is not None:
            named.append(f"--path={artifact_path}")
    said = output("path", *named, env=servers(tracking_uri, registry_uri))
    return Path(said[:-1] if said.endswith("\n") else said)


@overload
def status(mountpoint: StrPath) -> dict[str, Any]: ...
@overload
def status(mountpoint: None = None) -> list[dict[str, Any]]: ...
def status(mountpoint: Optional[StrPath] = None) -> Union[dict[str, Any], list[dict[str, Any]]]:
    """What a mount says of itself: `mlflowfs status --json`.

    Without mountpoint it is a list, of all mounts of this machine; one that does not
    answer has "error".
    """
    named = [] if mountpoint is None else ["--", os.fspath(mountpoint)]
    said: Union[dict[str, Any], list[dict[str, Any]]] = json.loads(output("status", "--json", *named))
    return said


def mounts() -> list[dict[str, Any]]:
    """The mounts of this machine: mountpoint, server and uptime_seconds, or error, of each."""
    said: list[dict[str, Any]] = json.loads(output("list", "--json"))
    return said


def unmount(mountpoint: StrPath, *, lazy: bool = False) -> None:
    """Unmount what mlflowfs mounted; lazy: at once, though programs use it."""
    output("unmount", *(["--lazy"] if lazy else []), "--", os.fspath(mountpoint))
