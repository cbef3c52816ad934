"""Runs scripts of the tests, each in a process of its own in which MLflow is imported
already: that takes a core 3 s, and most scripts much less.

usage: fork.py SOCKET

A connection asks for one script, by a line of JSON: {"args": a script or "-c" and
code, and its arguments; "env"; "dir"; "stdin"}. It is answered by another, when the
script has ended: {"code": of its exit, "out", "errs": what it printed}.
"""

import json
import os
import runpy
import socketserver
import sys
import tempfile
import traceback
import types

import mlflow
import mlflow.artifacts
import mlflow.pyfunc

sys.dont_write_bytecode = True  # of a script that another one imports


def run(args):
    """Runs a script as python does, and gives its exit code."""
    sys.argv = args if args[0] != "-c" else ["-c", *args[2:]]
    try:
        if args[0] == "-c":
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(args[1], "<string>", "exec"), main.__dict__)
        else:
            sys.path[0] = os.path.dirname(args[0])
            runpy.run_path(args[0], run_name="__main__")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


class Script(socketserver.StreamRequestHandler):
    """One connection, in a process of its own."""

    def handle(self):
        line = self.rfile.readline()
        if not line:  # who connected wanted to know whether this is up
            return
        ask = json.loads(line)
        os.environ.clear()
        os.environ.update(ask["env"])
        os.chdir(ask["dir"])
        files = [tempfile.TemporaryFile(dir=ask["dir"]) for _ in range(3)]
        files[0].write(ask["stdin"].encode())
        files[0].seek(0)
        for fd, f in enumerate(files):
            os.dup2(f.fileno(), fd)
        code = run(ask["args"])
        sys.stdout.flush()
        sys.stderr.flush()
        said = []
        for f in files[1:]:
            f.seek(0)
            said.append(f.read().decode(errors="replace"))
        self.wfile.write(json.dumps({"code": code, "out": said[0], "errs": said[1]}).encode() + b"\n")


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = 100
    request_queue_size = 100


if __name__ == "__main__":
    Server(sys.argv[1], Script).serve_forever()
