"""Mounts that live as long as those who use them."""

from __future__ import annotations

import atexit
import csv
import difflib
import functools
import io
import json
import os
import re
import select
import subprocess
import tempfile
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Optional, Sequence, Type, Union

from mlflowfs._commands import StrPath, servers
from mlflowfs._errors import Error, UsageError, error_of
from mlflowfs._program import executable, failed, output

Setting = Union[str, int, float, "os.PathLike[str]", Sequence[Union[str, "os.PathLike[str]"]], None]

_PATIENCE = 30.0  # seconds for a mount to answer, or to go


class Mount(AbstractContextManager[Path]):
    """A mount that this process uses until close(), or until the end of `with`.

    It can be entered more than once, also within itself: the last exit closes it, and
    the next entry mounts again.
    """

    def __init__(self, mountpoint: Optional[str], variables: dict[str, str]) -> None:
        self._mountpoint, self._variables = mountpoint, variables
        self._entered = 0
        self._shared: Optional[_Shared] = _share(mountpoint, variables)

    @property
    def path(self) -> Path:
        """The root of the mount."""
        if self._shared is None:
            raise Error("the mount is closed")
        return Path(self._shared.point)

    def close(self) -> None:
        """Let go of it; it is unmounted when nobody in this process uses it. Again: nothing."""
        with _lock:
            shared, self._shared, self._entered = self._shared, None, 0
            if shared is not None:
                shared.leave()

    def __enter__(self) -> Path:
        with _lock:
            if self._shared is None:
                self._shared = _share(self._mountpoint, self._variables)
            self._entered += 1
            return self.path

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        with _lock:
            self._entered -= 1
            if self._entered <= 0:
                self.close()

    def __repr__(self) -> str:
        return "<mlflowfs.Mount, closed>" if self._shared is None else f"<mlflowfs.Mount at {self._shared.point}>"


def mount(tracking_uri: Optional[StrPath] = None, *, registry_uri: Optional[StrPath] = None,
          mountpoint: Optional[StrPath] = None, **settings: Setting) -> Mount:
    """Mount a tracking server's runs and models.

        with mlflowfs.mount("http://localhost:5000") as root:
            config = (root / "models" / "fraud@champion" / "MLmodel").read_text()

    What is not given here comes from where the command `mlflowfs mount` has it: the
    variables of MLflow's and mlflowfs's, and the file of settings. settings are the flags of that
    command: cache_dir="/fast/cache", cache_size="20GiB", allow_other=True. Without
    mountpoint it is a new private directory, which is removed afterwards.

    It is unmounted at the end of `with`, by close(), and when this process ends, in
    whatever way. Uses with the same settings share one mount. A forked child may go on
    with it: it stays until parent and children have let go of it.
    """
    point = None if mountpoint is None else os.path.abspath(os.fspath(mountpoint))
    return Mount(point, {**_variables(settings), **servers(tracking_uri, registry_uri)})


def _variables(settings: dict[str, Setting]) -> dict[str, str]:
    """Settings as the variables that the program has for them."""
    given = {name: _text(value) for name, value in settings.items() if value is not None}
    if not given:
        return {}
    known = _known(executable())
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known) or ["see `mlflowfs mount --help`"]
            raise UsageError(f"there is no setting {name!r}; is it {' or '.join(near)}?" if near[0] in known
                             else f"there is no setting {name!r}: {near[0]}")
    return {known[name]: value for name, value in given.items()}


@functools.lru_cache(maxsize=None)
def _known(program: str) -> dict[str, str]:
    """The variable of each setting, as the program's help names it."""
    flags = re.findall(r"^ +--([a-z-]+) .*\[\$(\w+)", output("mount", "--help"), re.MULTILINE)
    return {flag.replace("-", "_"): variable for flag, variable in flags}


def _text(value: Setting) -> str:
    """A value as the program reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple, set, frozenset)):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow([_text(v) for v in value])
        return line.getvalue()
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


# What this process has mounted. The lock is held while it forks: a child has whole
# mounts, and a lock that is free.
_lock = threading.RLock()
_mounted: dict[tuple[object, ...], "_Shared"] = {}
_ending: list[subprocess.Popen[bytes]] = []  # daemons that others still use
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def _share(mountpoint: Optional[str], variables: dict[str, str]) -> _Shared:
    """The mount of these settings; a new one where there is none that lives."""
    program = executable()
    mine = sorted(v for v in os.environ.items() if v[0].startswith(("MLFLOW", "AWS_", "AZURE_", "GOOGLE_")))
    key = (program, mountpoint, os.getcwd(), *sorted(variables.items()), None, *mine)
    with _lock:
        shared = _mounted.get(key)
        if shared is None or not os.path.ismount(shared.point):
            shared = _mounted[key] = _Shared(program, mountpoint, variables)
        shared.users += 1
        return shared


class _Shared:
    """A daemon, which lives until the last process lets go of its life line.

    The life line is a pipe of which the daemon has the reading end. A forked child has a
    copy of the writing end, and so keeps the mount while it lives; a process that is killed
    lets go of it.
    """

    def __init__(self, program: str, mountpoint: Optional[str], variables: dict[str, str]) -> None:
        self.users = 0
        self.owner = os.getpid()
        self.private = mountpoint is None
        self.point = tempfile.mkdtemp(prefix="mlflowfs-") if mountpoint is None else mountpoint
        self.watched, self.life = os.pipe()
        ready, told = os.pipe()
        env = {**os.environ, **variables, "MLFLOWFS_READY_FD": str(told), "MLFLOWFS_LIFE_FD": str(self.watched)}
        if self.private:
            env["MLFLOWFS_OWN_MOUNTPOINT"] = "1"
        self.daemon: Optional[subprocess.Popen[bytes]] = None
        try:
            try:
                self.daemon = subprocess.Popen([program, "mount", "--", self.point], env=env, pass_fds=(told, self.watched),
                                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            except OSError as why:
                raise failed(program, why) from why
            finally:
                os.close(told)
            self._answers(ready)
        except BaseException:
            self._end()
            raise
        finally:
            os.close(ready)

    def _answers(self, ready: int) -> None:
        """Wait until the daemon says that it has mounted, or why it has not."""
        assert self.daemon is not None
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        said, end = b"", time.monotonic() + _PATIENCE
        while not said.endswith(b"\n"):
            if poll.poll(200):
                part = os.read(ready, 4096)
                if not part:
                    break
                said += part
            elif self.daemon.poll() is not None:
                break
            elif time.monotonic() > end:
                self.daemon.kill()
                raise Error(f"mlflowfs did not mount within {_PATIENCE:.0f} s")
        if not said.endswith(b"\n"):
            raise error_of(self.daemon.wait(), "")
        word = json.loads(said)
        if word["Err"]:
            raise error_of(word["Code"], word["Err"])

    def leave(self) -> None:
        """One user less."""
        self.users -= 1
        if self.users == 0:
            for key in [k for k, shared in _mounted.items() if shared is self]:
                del _mounted[key]
            self._end()

    def _end(self) -> None:
        """Let go of the life line, and wait for the mount to go if nobody else has it."""
        os.close(self.life)
        poll = select.poll()
        poll.register(self.watched, 0)  # the end of all writers alone
        if self.owner == os.getpid() and poll.poll(300):
            self._gone()
        os.close(self.watched)
        if self.daemon is not None and self.owner == os.getpid():
            _ending.append(self.daemon)
            _reap()

    def _gone(self) -> None:
        """Wait until it is unmounted. While other programs use it the daemon goes on without a mount point."""
        begin = time.monotonic()
        while not self._unmounted():
            ended = self.daemon is None or self.daemon.poll() is not None
            if time.monotonic() - begin > (3 if ended else _PATIENCE):  # of a killed holder the daemon unmounts
                return
            time.sleep(0.005)
        if self.daemon is not None:
            with suppress(subprocess.TimeoutExpired):
                self.daemon.wait(0.5)

    def _unmounted(self) -> bool:
        if not self.private:
            return not os.path.ismount(self.point)
        try:
            os.rmdir(self.point)  # which can't be while it is mounted
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True


def _reap() -> None:
    _ending[:] = [daemon for daemon in _ending if daemon.poll() is None]


@atexit.register
def _end_all() -> None:
    with _lock:
        for shared in list(_mounted.values()):
            shared.users = 1
            shared.leave()
        _reap()
