"""What the MLflow plug-in asks the program, and what it makes of the answer.

The functions of the names of MLflow's methods give None where MLflow's own code is to do
it without a word; whatever they raise is said once, and then MLflow's own code does it,
too: see mlflowfs_plugin.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from importlib import import_module
from typing import Any, Optional, Union
from urllib.request import url2pathname

from mlflowfs import _program

# The program gives a sign of life at once, and each second. The longest silence, and
# the longest time that a look at a path takes, in seconds.
_SILENCE = 3
_LOOK = 1.5

# The most that the program may say, in bytes: it lists a directory of a million files.
_SAID = 256 << 20

# For so many seconds after the program could not be run, or hung, it isn't asked.
_REST = 60
_rest_until = 0.0

_held: dict[str, Any] = {}  # the locks of shared directories, open, and mounts, as descriptors

_NOT_THERE, _REFUSED = 3, 4  # exit codes: the error is to be MLflow's own

# Functions of MLflow's that download into a directory, only read what comes there,
# and delete it: they can read it in its place.
_READS = {
    ("mlflow.artifacts", "load_text"),
    ("mlflow.artifacts", "load_dict"),
    ("mlflow.artifacts", "load_image"),
    ("mlflow.metrics.genai.genai_metric", "retrieve_custom_metrics"),
    ("mlflow.models.flavor_backend_registry", "get_flavor_backend"),
    ("mlflow.models.utils", "_read_file_content"),
    ("mlflow.tracking.client", "get_artifact_data"),
    ("mlflow.tracking.client", "log_table"),
}

# Functions of MLflow's that write to what was downloaded to no named directory, delete
# it, or leave it behind.
_WRITES = {
    ("mlflow.models.model", "get_model_requirements_files"),
    ("mlflow.models.signature", "set_signature"),
    ("mlflow.store._unity_catalog.registry.rest_store", "_local_model_dir"),
    ("mlflow.store._unity_catalog.registry.uc_oss_rest_store", "_local_model_dir"),
    ("mlflow.store.artifact.cli", "download_artifacts"),
    ("mlflow.store.model_registry.databricks_workspace_model_registry_rest_store", "copy_model_version"),
    ("mlflow.sagemaker", "run_local"),  # gives it to docker, which is another user
    ("mlflow.utils.env_pack", "_get_source_artifacts"),
}


class _Unable(Exception):
    """The program can't be asked: it rests for a while."""


def download_artifacts(repo: Any, artifact_path: Any, dst_path: Any = None, lineage_header_info: Any = None) -> Optional[str]:
    """A path to read from: what the method of the repository gives."""
    if time.monotonic() < _rest_until or not isinstance(artifact_path, str):
        return None
    dst_path = dst_path or None  # "" is none, as for MLflow
    caller = _caller()
    in_place = dst_path is None or caller == "reads"
    if _is_of_run_alone(repo, artifact_path, in_place):
        repo = repo.repo
    uri, env = _question(repo, artifact_path)
    if uri is None or env is None or caller == "writes":
        return None
    try:
        if in_place:
            return _in_place(repo, uri, artifact_path, dst_path, env)
        return _copied(repo, uri, artifact_path, os.path.abspath(dst_path), env)
    except _Unable:
        _rest()
        raise


def list_artifacts(repo: Any, path: Any = None) -> Optional[list[Any]]:
    """What the method of the repository gives, by a mount that lives; without one MLflow's
    own answer costs less."""
    if time.monotonic() < _rest_until or not (path is None or isinstance(path, str)) or not _is_mounted():
        return None
    path = path or ""
    if _is_of_run_alone(repo, path, False):
        repo = repo.repo
    elif type(repo).__name__ == "RunsArtifactRepository" and repo._mlflowfs[1] != import_module("mlflow").get_tracking_uri():
        return None  # MLflow asks the one for the run, and the other for its logged models
    uri, env = _question(repo, path)
    if uri is None or env is None:
        return None
    try:
        said = _ask(["ls", "--json", "--mounted", "--", uri], env)
        return None if said is None else _infos(said, path, _below_run(repo))
    except _Unable:
        _rest()
        raise


def _below_run(repo: Any) -> Optional[str]:
    """Where a run's repository begins in the run; None for another repository."""
    if type(repo).__name__ != "RunsArtifactRepository":
        return None
    return str(repo._mlflowfs[0]).strip("/").partition("/")[2].partition("/")[2]


def _infos(said: bytes, path: str, below_run: Optional[str]) -> Optional[list[Any]]:
    """What `ls --json` says of a path in a repository, as MLflow has it; None where its
    stores differ in that: of nothing, of a file, of a directory with one file of the same
    name, of empty files. What a logged model has of a run's path is named from the run on."""
    FileInfo, infos = import_module("mlflow.entities").FileInfo, []
    try:
        for f in json.loads(said):
            name, is_dir, size = posixpath.basename(f["path"]), bool(f["is_dir"]), f.get("file_size")
            if not is_dir and not size:
                return None
            of_model = below_run is not None and posixpath.dirname(f["path"]) != posixpath.basename(path)
            infos.append(FileInfo(posixpath.join(below_run or "" if of_model else "", path, name), is_dir, None if is_dir else int(size)))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _Unable(f"mlflowfs ls gave {said[:200]!r}") from None
    alone = len(infos) == 1 and posixpath.basename(infos[0].path) == posixpath.basename(path)
    return None if alone or not infos else infos


def _is_mounted() -> bool:
    """Whether there may be a mount of the program's to ask."""
    table = "/proc/self/mountinfo"
    if not os.path.exists(table):
        return True
    with open(table, "rb") as f:
        return b" fuse.mlflowfs " in f.read()


def asks_itself(repo: Any, artifact_path: Any, registry_uri: Any) -> bool:
    """Whether the program is asked for what the repository is for before MLflow asks its
    server where that is: where both find the same, and no other package has a say."""
    root, tracking = str(repo._mlflowfs[0]), repo._mlflowfs[1]
    mlflow = import_module("mlflow")
    registry = mlflow.get_registry_uri()
    if registry_uri not in (None, registry) or not all(re.match("https?:", str(uri)) for uri in (tracking, registry)):
        return False
    return _is_plain(type(repo).__name__, root, artifact_path, tracking != mlflow.get_tracking_uri()) and not _others_say()


def _is_plain(kind: str, root: str, artifact_path: Any, elsewhere: bool) -> bool:
    """Whether a repository's URI is of the forms that every release takes for the same."""
    if kind == "RunsArtifactRepository":
        return not _is_2() and bool(artifact_path) and re.match(r"runs:/[0-9a-f]{32}(/|$)", root) is not None
    if kind != "ModelsArtifactRepository":
        return False
    if re.fullmatch(r"models:/m-[0-9a-f]{32}", root):
        return not _is_2() and not elsewhere
    alias = re.fullmatch(r"models:/[^/@#?%\\]+@([^/@#?%\\]+)", root)
    if alias:  # behind one a number may be a version of a model that has an @ in its name
        return alias[1].lower() != "latest" and not re.match(r"(\d+|latest)(/|$)", artifact_path or "", re.IGNORECASE)
    return re.fullmatch(r"models:/[^/@#?%\\]+/(\d+|latest)", root) is not None


def _others_say() -> bool:
    """Whether another package has a repository, or a store of MLflow's servers."""
    plugin = import_module("mlflowfs_plugin")
    if plugin.others() or plugin.registers("mlflow.tracking_store") or plugin.registers("mlflow.model_registry_store"):
        return True
    known = import_module("mlflow.store.artifact.artifact_repository_registry").get_registered_artifact_repositories()
    return any(not of.__module__.startswith(("mlflow.", "mlflowfs_plugin")) for of in known.values())


def _rest() -> None:
    global _rest_until
    _rest_until = time.monotonic() + _REST


def _caller() -> str:
    """What MLflow's function does that called: "reads", "writes", or ""."""
    frame: Any = sys._getframe(2)
    while frame and (frame.f_globals.get("__name__") or "").startswith("mlflow"):
        at = frame.f_globals["__name__"], frame.f_code.co_name
        if at in _WRITES:
            return "writes"
        if at in _READS:
            return "reads"
        frame = frame.f_back
    return ""


def _question(repo: Any, artifact_path: str) -> Union[tuple[str, dict[str, str]], tuple[None, None]]:
    """The URI that means what MLflow would download, and the environment in which the
    program asks where MLflow asks; None where it might mean something else."""
    mlflow = import_module("mlflow")
    nothing = None, None
    asked, tracking = getattr(repo, "_mlflowfs", nothing)
    if asked is None:
        return nothing
    root, registry = str(asked), mlflow.get_registry_uri()
    scheme = root.partition(":")[0]
    if repo._mlflowfs_late:
        pass  # asks_itself has seen to it
    elif scheme in ("models", "runs"):
        if not _is_read(repo.repo):
            return nothing
        if scheme == "models" and repo.model_name is not None:
            root = f"models:/{repo.model_name}/{repo.model_version}"
            if "@" in repo.model_name:
                return nothing  # would be an alias
        elif scheme == "models" and tracking != mlflow.get_tracking_uri():
            return nothing  # MLflow asks the one for the place, and the other for the bytes
        elif scheme == "runs" and not artifact_path:
            return nothing  # MLflow leaves out logged models
    if not (_plain(root, artifact_path) and _known(tracking) and _known(registry)) or _asks_otherwise():
        return nothing
    return "/".join(filter(None, [root.rstrip("/"), artifact_path])), _environment(tracking, registry)


def _is_read(repo: Any) -> bool:
    """Whether mlflowfs reads what the repository does, and it lies elsewhere: another
    package's repository may do more, and Databricks' and Unity Catalog's are their own."""
    kind = type(repo)
    name = kind.__name__
    return kind.__module__.startswith("mlflow.store.artifact.") and name != "LocalArtifactRepository" and "atabricks" not in name and "UnityCatalog" not in name


def _asks_otherwise() -> bool:
    """Whether MLflow asks its server with what only Python knows: other packages' ways to
    log in, and their headers."""
    if os.environ.get("MLFLOW_TRACKING_AUTH", "") not in ("", "kubernetes", "kubernetes-namespaced"):
        return True
    headers = "mlflow.tracking.request_header.registry"
    if headers not in sys.modules and not import_module("mlflowfs_plugin").registers("mlflow.request_header_provider"):
        return False
    registry = import_module(headers)._request_header_provider_registry
    return any(not type(p).__module__.startswith("mlflow.") and p.in_context() for p in registry)


def _plain(root: str, artifact_path: str) -> bool:
    """Whether the URI means the same to MLflow and to mlflowfs: see docs/uris.md."""
    scheme, _, rest = root.partition(":")
    if rest.startswith("//") and scheme in ("models", "runs", "mlflow-artifacts"):
        return False  # names a host, or a profile of Databricks'
    path = rest.lstrip("/").rstrip("/")
    if scheme == "mlflow-artifacts" and "/" not in path:
        return False
    if artifact_path:
        path += "/" + artifact_path
    names = path.split("/")
    return not any(n in ("", ".", "..") for n in names) and not re.search(r"[#?\\\0]|%[0-9A-Fa-f]{2}", path)


def _known(uri: Any) -> bool:
    """Whether the program reads such a store; a path is one."""
    scheme, colon, _ = str(uri).partition(":")
    return scheme in ("http", "https", "file", "sqlite") if colon else not scheme.startswith("databricks")


def _environment(tracking: Any, registry: Any) -> dict[str, str]:
    """The environment, with the servers that MLflow asks."""
    env = dict(os.environ, MLFLOW_TRACKING_URI=str(tracking), MLFLOW_REGISTRY_URI=str(registry))  # a file of settings may name others
    if env.get("MLFLOWFS_AUTOMOUNT") != "1" and env.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES") != "0":
        env["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"  # then MLflow tries as often as it is to; a mount would have it for its life
    workspace = _workspace()
    if workspace:
        env["MLFLOW_WORKSPACE"] = workspace
    return env


def _workspace() -> Optional[str]:
    """The workspace that MLflow asks in; None before MLflow 3."""
    try:
        context = import_module("mlflow.utils.workspace_context")
    except ModuleNotFoundError:
        return None
    workspace: Optional[str] = context.get_request_workspace()
    return workspace


def _in_place(repo: Any, uri: str, artifact_path: str, dst: Any, env: dict[str, str]) -> Optional[str]:
    """The path where it can be read on this machine. What can't be shared is copied, to
    dst if there is one."""
    if dst is not None:
        env["MLFLOWFS_COPY_DIR"] = os.path.abspath(dst)
    said = _ask(["path", "--json", "--quiet", "--", uri], env)
    if said is None:
        return None
    path, how, mount, otherwise = _placed(said)
    if otherwise or url2pathname(path) != path:
        return None  # of a path that it may take for a URI MLflow unescapes it
    _look(path)
    if artifact_path and os.path.basename(path) != os.path.basename(artifact_path):
        raise _Unable(f"mlflowfs path gave {path!r} for {uri}")
    if how in ("mount", "shared") and dst is None:  # else it is read at once
        _hold(path, mount)
    return _shaped(repo, path, artifact_path) if _is_own(repo, path, artifact_path) else None


def _placed(said: bytes) -> tuple[str, str, str, bool]:
    """What `path --json` says: a path, how it can be read there, the mount point, and
    whether MLflow would give something else."""
    try:
        placed = json.loads(said)
        path, how, mount, otherwise = str(placed["path"]), str(placed["how"]), str(placed.get("mount", "")), bool(placed.get("otherwise"))
        if os.path.isabs(path) and "\0" not in path:
            return path, how, mount, otherwise
    except (ValueError, TypeError, KeyError):
        pass
    raise _Unable(f"mlflowfs path gave {said[:200]!r}")


def _copied(repo: Any, uri: str, artifact_path: str, dst: str, env: dict[str, str]) -> Optional[str]:
    """A copy in the directory dst, of which nothing stays where it is not whole."""
    if not os.path.isdir(dst):
        return None
    stage = tempfile.mkdtemp(prefix=".mlflowfs-", dir=dst)
    try:
        at = stage
        if not artifact_path:
            uri += "/"  # what is in it
        elif not uri.startswith(("runs:", "models:")):  # of these the program puts the path there itself
            at = os.path.join(stage, os.path.dirname(artifact_path))
        said = _ask(["download", "--quiet", "--dst", at, "--", uri], env)
        if said is None:
            return None
        path = os.path.relpath(os.fsdecode(said[:-1]), stage)
        if path.startswith("..") or not os.path.exists(os.path.join(stage, path)):
            raise _Unable(f"mlflowfs download gave {path!r} for {uri}")
        _move(stage, dst)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return _shaped(repo, os.path.normpath(os.path.join(dst, path)), artifact_path)


def _move(source: str, target: str) -> None:
    """Moves what is in a directory into another, over what is there."""
    for entry in list(os.scandir(source)):
        to = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False) and os.path.isdir(to):
            _move(entry.path, to)
        else:
            os.replace(entry.path, to)


def _shaped(repo: Any, path: str, artifact_path: str) -> str:
    """The path with a slash at the end, where MLflow 2 gives one."""
    return path if artifact_path or not _is_2() else os.path.join(path, "")


def _is_2() -> bool:
    return str(import_module("mlflow").__version__).startswith("2.")


def _is_runs_of_2(repo: Any) -> bool:
    """Whether it is a run's repository of MLflow 2, which knows no logged models."""
    return type(repo).__name__ == "RunsArtifactRepository" and not hasattr(repo, "_list_model_artifacts")


def _is_of_run_alone(repo: Any, artifact_path: str, in_place: bool) -> bool:
    """Whether MLflow only asks for what is logged to the run itself."""
    if type(repo).__name__ != "RunsArtifactRepository":
        return False
    return _is_runs_of_2(repo) and not in_place or not artifact_path and repo.artifact_uri.strip("/").count("/") == 1


def _is_own(repo: Any, path: str, artifact_path: str) -> bool:
    """Whether MLflow finds all of it: its release 2 has not the run's logged models."""
    if not _is_runs_of_2(repo):
        return True
    parent = os.path.dirname(artifact_path)
    if os.path.isdir(path):
        theirs, ours = repo.repo.list_artifacts(artifact_path), os.listdir(path)
    else:
        theirs, ours = repo.repo.list_artifacts(parent), [os.path.basename(path)]
    return set(ours) <= {os.path.basename(f.path) for f in theirs}


def _look(path: str) -> None:
    """Raises where there is nothing, or no answer in time: a mount may hang."""
    seen: list[Optional[Exception]] = []

    def look() -> None:
        try:
            os.stat(path)
            seen.append(None)
        except Exception as e:
            seen.append(e)

    t = threading.Thread(target=look, name="mlflowfs-look", daemon=True)
    t.start()
    t.join(_LOOK)
    if not seen:
        raise _Unable(f"{path} does not answer")
    if seen[0] is not None:
        raise _Unable(f"mlflowfs path gave {path}: {seen[0]}")


def _hold(path: str, mount: str) -> None:
    """Keeps a shared directory of the cache, or a mount that the program has made, for as
    long as this process, and those that it forks, live: see `mlflowfs download --help`."""
    import fcntl

    if mount:
        run = os.environ.get("XDG_RUNTIME_DIR", "")
        made = os.path.join(run, "mlflowfs") if os.path.isabs(run) else os.path.join(tempfile.gettempdir(), f"mlflowfs-{os.geteuid()}")
        if mount not in _held and os.path.dirname(mount) == made:
            _held[mount] = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
        return
    parts = path.split(os.sep)
    for i, name in enumerate(parts):
        lock = os.sep.join([*parts[:i], "lock"])
        if name == "files" and lock not in _held and os.path.exists(lock):
            f = open(lock, "rb")
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            _held[lock] = f
    os.stat(path)  # evicted before that, it is gone


def _ask(args: list[str], env: dict[str, str]) -> Optional[bytes]:
    """Runs the program, and gives what it prints; None where it says that nothing is
    there, or that it may not be read."""
    try:
        program = _program.executable()
        code, out, err = _run([program, *args], env)
    except OSError as e:
        raise _Unable(f"the program can't be run: {e}") from None
    except _Unable:
        raise
    except Exception as e:
        raise _Unable(str(e) or type(e).__name__) from e
    if code in (_NOT_THERE, _REFUSED):
        return None
    if code == 1:
        raise RuntimeError(_last_line(err))
    if code or not out.endswith(b"\n"):
        raise _Unable(f"mlflowfs {args[0]} ended with {code}: {_last_line(err)}")
    return out


def _last_line(err: bytes) -> str:
    lines = err.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("mlflowfs: ") if lines else "it said nothing"


def _run(command: list[str], env: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Runs a command for as long as it shows that it lives."""
    beats, beat = os.pipe()
    try:
        os.set_blocking(beats, False)
        p = subprocess.Popen(
            command, env={"GOGC": "off", **env, "MLFLOWFS_BEAT_FD": str(beat)}, pass_fds=[beat],  # off for its start: there is no garbage
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        os.close(beat)
        beat = -1
        try:
            return _attend(p, beats)
        finally:
            if p.poll() is None:
                p.kill()
                try:
                    p.wait(0.2)
                except subprocess.TimeoutExpired:
                    pass  # it waits in the kernel for a mount that hangs, and ends with that
            for stream in (p.stdout, p.stderr):
                if stream:
                    stream.close()
    finally:
        os.close(beats)
        if beat >= 0:
            os.close(beat)


def _attend(p: subprocess.Popen[bytes], beats: int) -> tuple[int, bytes, bytes]:
    """Reads what the process says until it ends: one that it leaves behind may keep its
    streams."""
    assert p.stdout and p.stderr
    out, err = p.stdout.fileno(), p.stderr.fileno()
    said = {out: bytearray(), err: bytearray()}
    for fd in said:
        os.set_blocking(fd, False)
    with selectors.DefaultSelector() as s:
        for fd in (*said, beats):
            s.register(fd, selectors.EVENT_READ)
        began = heard = time.monotonic()
        while True:
            ended = p.poll() is not None
            wait = 0.002 if time.monotonic() - began < 0.5 else 0.02  # for its end, which no stream need tell
            if not s.get_map():
                wait = 0.0002
            ready = s.select(0 if ended else wait)
            for key, _ in ready:
                some = os.read(key.fd, 65536)
                if not some:
                    s.unregister(key.fd)
                elif key.fd in said:
                    said[key.fd] += some
                    del said[err][:-65536]
                    if len(said[key.fd]) > _SAID:
                        raise _Unable("the program says more than anybody reads")
            if ended and not ready:
                return p.returncode, bytes(said[out]), bytes(said[err])
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE:
                raise _Unable(f"the program hangs: no sign of life for {_SILENCE} s")
