"""What MLflow loads, when it is imported, of each of mlflowfs's entry points.

MLflow catches ImportError and AttributeError of an entry point, and nothing else. So
this module imports and runs next to nothing; what asks mlflowfs is in mlflowfs._mlflow,
which is imported by the first download. Whatever goes wrong there or here, MLflow's own
code does the work, after one warning for each process.

A function that begins with `try` is called by MLflow, or in the last resort: it must not
raise, whatever does that it calls.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from typing import Any, Callable, Iterator

_thread = threading.local()  # .own is true while MLflow's own download runs
_classes: dict[Any, Any] = {}  # MLflow's class: ours
_declared: bytes | None = None  # the entry points of other packages
_others: dict[str, Any] | None = None  # scheme: the entry point that another package has for it
_warned = False


def _warn(error: Exception) -> None:
    """Says once for each process why MLflow's own code does the work."""
    try:
        global _warned
        if _warned:
            return
        _warned = True
        import logging

        logging.getLogger("mlflow.mlflowfs").warning(
            "MLflow downloads by itself, without mlflowfs: %s (MLFLOWFS_PLUGIN=off switches mlflowfs off)",
            str(error) or type(error).__name__,
        )
    except Exception:
        pass


def _off() -> bool:
    """True where the user wants it, and in the processes of MLflow's own server."""
    if os.environ.get("MLFLOWFS_PLUGIN", "").lower() in ("off", "0", "false", "no"):
        return True
    return "_MLFLOW_SERVER_FILE_STORE" in os.environ or "_MLFLOW_SERVER_ARTIFACT_ROOT" in os.environ


# Entry points by which other packages have a say in where artifacts lie.
_GROUPS = ("mlflow.artifact_repository", "mlflow.request_header_provider", "mlflow.tracking_store", "mlflow.model_registry_store")


def registers(group: str) -> bool:
    """Whether a package that is neither MLflow nor this one may have entry points of the
    group. importlib.metadata, which tells that too, takes longer than all that a load asks
    of mlflowfs."""
    global _declared
    if _declared is None:
        _declared = b"".join(_declarations())
    return group.encode() in _declared


def _declarations() -> Iterator[bytes]:
    """What other packages declare, by the files that importlib.metadata reads."""
    for directory in (d or "." for d in sys.path):
        if os.path.isfile(directory):
            yield b" ".join(g.encode() for g in _GROUPS)  # an archive: it may have any
            continue
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info", ".egg")) and not name.startswith(("mlflow-", "mlflow_skinny-", "mlflow_tracing-", "mlflowfs-")):
                inner = "EGG-INFO/" if name.endswith(".egg") else ""
                try:
                    with open(f"{directory}/{name}/{inner}entry_points.txt", "rb", 0) as f:
                        yield f.read()
                except OSError:
                    pass  # it declares none


def others() -> Any:
    """What other packages register for schemes, which goes before us."""
    global _others
    if _others is None:
        of, points = "mlflow.artifact_repository", []
        if registers(of):
            points = import_module("mlflow.utils.plugins").get_entry_points(of)
        _others = {p.name: p for p in points if not p.value.startswith(__name__ + ":")}
    return _others


def _answer(method: str, repo: Any, args: Any, kwargs: Any) -> Any:
    """mlflowfs's answer, or None. What MLflow's own download asks other repositories
    for, it writes to: there they are MLflow's own, too."""
    if getattr(_thread, "own", False) or _off():
        return None
    return getattr(import_module("mlflowfs._mlflow"), method)(repo, *args, **kwargs)


def _method(name: str, mlflows: Any) -> Any:
    """A method of ours, which is MLflow's where mlflowfs has no answer."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = _answer(name, self, args, kwargs)
        except Exception as e:
            answer = None
            _warn(e)
        if answer is not None:
            return answer
        late = self.__dict__.get("_mlflowfs_late")
        if late is not None:
            mlflows.__init__(self, *late[0], **late[1])
            self._mlflowfs_late = None
        before = getattr(_thread, "own", False)
        _thread.own = True
        try:
            return getattr(mlflows, name)(self, *args, **kwargs)
        finally:
            _thread.own = before

    method.__name__, method.__qualname__, method.__doc__ = name, f"{mlflows.__qualname__}.{name}", getattr(mlflows, name).__doc__
    return method


def _class(mlflows: Any) -> Any:
    """A class of the same name that differs from MLflow's in two methods alone, and in when
    it asks the server for where the artifacts lie (see _note)."""

    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            _note(self, args, kwargs)
        except Exception as e:
            self._mlflowfs_late = None
            _warn(e)
        if self._mlflowfs_late is None:
            mlflows.__init__(self, *args, **kwargs)

    if mlflows not in _classes:
        same = {"__module__": mlflows.__module__, "__qualname__": mlflows.__qualname__, "__doc__": mlflows.__doc__}
        ours = {name: _method(name, mlflows) for name in ("download_artifacts", "list_artifacts")}
        _classes[mlflows] = type(mlflows.__name__, (mlflows,), {**same, **ours, "__init__": make})
    return _classes[mlflows]


def _note(repo: Any, args: Any, kwargs: Any) -> None:
    """Notes for what the repository is made, and where MLflow asks now: its own attributes
    may hold that no more when it is used.

    mlflowfs asks the server itself for where the artifacts lie. A repository that MLflow
    makes for one download to no named directory, of what means the same to mlflowfs, begins
    with that: it is made where MLflow is to do the download."""
    repo._mlflowfs_late = None
    tracking_uri = kwargs.get("tracking_uri") or import_module("mlflow").get_tracking_uri()
    repo._mlflowfs = args[0] if args else kwargs["artifact_uri"], tracking_uri
    if getattr(_thread, "own", False) or _off():
        return
    frame: Any = sys._getframe(3)
    while frame and frame.f_code.co_name == "get_artifact_repository" and (frame.f_globals.get("__name__") or "").startswith("mlflow."):
        frame = frame.f_back
    by = (frame.f_globals.get("__name__"), frame.f_code.co_name) if frame else None
    if by != ("mlflow.tracking.artifact_utils", "_download_artifact_from_uri") or frame.f_locals.get("output_path"):
        return
    if import_module("mlflowfs._mlflow").asks_itself(repo, frame.f_locals.get("artifact_path"), kwargs.get("registry_uri")):
        repo._mlflowfs_late = args, kwargs


def _factory(scheme: str, module: str, name: str) -> Callable[..., Any]:
    module = "mlflow.store.artifact." + module

    def repository(artifact_uri: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            mlflows = getattr(import_module(module), name)
            chosen = others()[scheme].load() if scheme in others() else mlflows if _off() else _class(mlflows)
        except Exception as e:
            _warn(e)
            chosen = getattr(import_module(module), name)
        return chosen(artifact_uri, *args, **kwargs)

    repository.__name__ = repository.__qualname__ = name  # by which MLflow names sources of datasets
    return repository


models = _factory("models", "models_artifact_repo", "ModelsArtifactRepository")
runs = _factory("runs", "runs_artifact_repo", "RunsArtifactRepository")
mlflow_artifacts = _factory("mlflow-artifacts", "mlflow_artifacts_repo", "MlflowArtifactsRepository")
s3 = _factory("s3", "s3_artifact_repo", "S3ArtifactRepository")
gs = _factory("gs", "gcs_artifact_repo", "GCSArtifactRepository")
wasbs = _factory("wasbs", "azure_blob_artifact_repo", "AzureBlobArtifactRepository")
abfss = _factory("abfss", "azure_data_lake_artifact_repo", "AzureDataLakeArtifactRepository")
r2 = _factory("r2", "r2_artifact_repo", "R2ArtifactRepository")
