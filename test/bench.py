"""Measures a mount beside the MLflow client, on one server, in one run.

usage: bench.py MLFLOWFS [SIZE_MIB] [ROUNDS]

A tracking server (MLflow 3, artifacts in a local directory) holds one large
artifact and one model. Each row is measured in turns, ours and theirs, and is
the median of the rounds. `theirs` is mlflow.artifacts.download_artifacts, or
load_model of a models:/ URI, which downloads too.
"""

import json
import logging
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
os.environ.update(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false", MLFLOW_DISABLE_TELEMETRY="true", GIT_PYTHON_REFRESH="quiet")

import mlflow
import numpy as np
from mlflow.artifacts import download_artifacts


class Weights(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.weights = np.load(context.artifacts["weights"])

    def predict(self, context, model_input, params=None):
        return [float(self.weights[0])]


def start_server(work):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = open(os.path.join(work, "server.log"), "w")
    server = subprocess.Popen(
        [os.path.join(os.path.dirname(sys.executable), "mlflow"), "server", "--backend-store-uri", f"sqlite:///{work}/mlflow.db",
         "--artifacts-destination", f"{work}/artifacts", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"],
        stdout=log, stderr=log, cwd=work, env=dict(os.environ, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"), start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(url + "/health")
            return server, url
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server does not come up; see " + log.name)


def answering(pid):
    """The process that answers the mount that pid holds: its child, where it has one."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as f:
            for child in f.read().split():
                return int(child)
    return pid


class Mount:
    def __init__(self, binary, url, work):
        self.dir = tempfile.mkdtemp(dir=work)
        self.proc = subprocess.Popen([binary, "mount", "--tracking-uri", url, self.dir], stderr=subprocess.PIPE, text=True)
        for line in self.proc.stderr:
            if "Ctrl-C" in line:
                return
        raise SystemExit("the mount does not come up")

    def close(self):
        with open(f"/proc/{answering(self.proc.pid)}/status") as f:
            peak = next(int(l.split()[1]) for l in f if l.startswith("VmHWM"))
        self.proc.send_signal(signal.SIGINT)
        self.proc.wait()
        return peak // 1024


def timed(f):
    begin = time.perf_counter()
    f()
    return time.perf_counter() - begin


def read(path, n=-1):
    """Reads as a program does that knows nothing of us."""
    subprocess.run(["cat", path] if n < 0 else ["head", "-c", str(n), path], check=True, stdout=subprocess.DEVNULL)


def main():
    binary = os.path.abspath(sys.argv[1])
    mib, rounds = int((sys.argv[2:3] or [1024])[0]), int((sys.argv[3:4] or [3])[0])
    work = tempfile.mkdtemp(prefix="mlflowfs-bench-")
    server, url = start_server(work)
    mlflow.set_tracking_uri(url)
    rows, peak = {}, 0
    try:
        with mlflow.start_run() as run:
            np.save(os.path.join(work, "weights.npy"), np.random.default_rng(1).random(6_500_000))
            mlflow.pyfunc.log_model(name="model", python_model=Weights(), artifacts={"weights": os.path.join(work, "weights.npy")},
                                    pip_requirements=[], registered_model_name="weights")
        big = os.path.join(work, "artifacts", "0", run.info.run_id, "artifacts", "big.bin")
        os.makedirs(os.path.dirname(big), exist_ok=True)
        with open(big, "wb") as f:
            for _ in range(mib):
                f.write(os.urandom(1 << 20))
        file, model = f"runs/{run.info.run_id}/big.bin", "models/weights/1"

        def theirs(uri="runs:/" + run.info.run_id + "/big.bin"):
            dst = tempfile.mkdtemp(dir=work)
            try:
                return timed(lambda: download_artifacts(uri, dst_path=dst))
            finally:
                shutil.rmtree(dst)

        def add(row, ours, theirs):
            rows.setdefault(row, ([], []))
            rows[row][0].append(ours)
            rows[row][1].append(theirs)

        for _ in range(rounds):
            m = Mount(binary, url, work)
            first = timed(lambda: read(os.path.join(m.dir, file), 1))
            m.close()
            m = Mount(binary, url, work)
            cold = timed(lambda: read(os.path.join(m.dir, file)))
            warm = timed(lambda: read(os.path.join(m.dir, file)))
            peak = max(peak, m.close())
            whole = theirs()
            add("first byte of it", first, whole)  # there is none before the last
            add("whole, cold", cold, whole)
            add("whole, again", warm, theirs())
            m = Mount(binary, url, work)
            add("load_model, cold", timed(lambda: mlflow.pyfunc.load_model(os.path.join(m.dir, model))),
                timed(lambda: mlflow.pyfunc.load_model("models:/weights/1")))
            m.close()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        shutil.rmtree(work, ignore_errors=True)

    print(f"one artifact of {mib} MiB and one model of 50 MiB behind MLflow {mlflow.__version__}, {os.cpu_count()} cores, {rounds} rounds")
    print(f"{'':<20}{'mlflowfs':>12}{'mlflow client':>16}{'ratio':>9}   spread of ours")
    for row, (ours, peers) in rows.items():
        o, p = statistics.median(ours), statistics.median(peers)
        print(f"{row:<20}{o:>10.3f} s{p:>14.3f} s{p / o:>8.1f}x   {min(ours):.3f} to {max(ours):.3f} s")
    print(f"peak memory of the mount: {peak} MiB")
    print(json.dumps({row: {"mlflowfs": statistics.median(o), "client": statistics.median(p)} for row, (o, p) in rows.items()}), file=sys.stderr)


if __name__ == "__main__":
    main()
