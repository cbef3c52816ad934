"""Measures mlflow.pyfunc.load_model with the plug-in beside stock MLflow's.

usage: bench_load.py MLFLOWFS PACKAGE LINK [--mib 1024] [--rounds 3] [--delay 20ms] [--rate 200000000]

PACKAGE is the directory that holds the Python package mlflowfs and its entry points
(what pip makes of the wheel). A model of one file of weights (safetensors, which
load_context reads whole, as a model server does) lies in an S3 store, behind a link of
that delay, each way half of it, and rate; beside it an MLflow server that knows it.
Each load is a process of its own that has imported mlflow; its time is from load_model
to the model, and the first tensor is the time until one tensor of the file is read, by
the path that download_artifacts gives; and the same from the open of that: on a mount
that has told where the model is before and has none of its weights, and on one that knows
nothing of it nor of its store. Bytes are those that the link let pass. stock, and local
(the directory itself), are measured in turns with the others.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request

from bench_download import port, running

BIN = os.path.dirname(sys.executable)
KEYS = dict(AWS_ACCESS_KEY_ID="benchbenchbench", AWS_SECRET_ACCESS_KEY="benchbenchbench", AWS_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true",
            MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false", GIT_PYTHON_REFRESH="quiet")

MODEL = '''
import mlflow
from safetensors import safe_open

class Weights(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with safe_open(context.artifacts["weights"], "np") as f:
            self.sum = {name: float(f.get_tensor(name)[::4096].sum()) for name in f.keys()}

    def predict(self, context, model_input, params=None):
        return self.sum

mlflow.models.set_model(Weights())
'''

LOAD = '''
import json, os, sys, time, warnings
warnings.filterwarnings("ignore")
import mlflow, mlflow.pyfunc, cloudpickle
from safetensors import safe_open
what, uri = sys.argv[1:]
begin = time.perf_counter()
if what == "model":
    got = mlflow.pyfunc.load_model(uri).predict([0])
else:
    path = mlflow.artifacts.download_artifacts(uri)
    if what == "open":
        begin = time.perf_counter()
    with safe_open(os.path.join(path, "artifacts", "weights.safetensors"), "np") as f:
        got = {"t0": float(f.get_tensor("t0").sum())}
print(json.dumps([time.perf_counter() - begin, got]))
'''


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in "mlflowfs", "package", "link":
        p.add_argument(name, type=os.path.abspath)
    p.add_argument("--mib", type=int, default=1024)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--delay", default="10ms", help="each way")
    p.add_argument("--rate", type=int, default=200_000_000)
    return p.parse_args()


@contextlib.contextmanager
def distance(a, to, log):
    """The store's port behind the link, and where that tells how many bytes have come."""
    p, count = port(), f"127.0.0.1:{port()}"
    args = [a.link, "proxy", "--listen", f"127.0.0.1:{p}", "--to", f"127.0.0.1:{to}", "--delay", a.delay, "--rate", str(a.rate), "--count", count]
    with running(args, "http://" + count, log):
        yield p, "http://" + count


class Bench:
    def __init__(self, a, work, count):
        self.a, self.work, self.count, self.times = a, work, count, {}

    def seed(self, url):
        """The model, and its directory."""
        import mlflow
        import numpy as np
        from safetensors.numpy import save_file

        mlflow.set_tracking_uri(url)
        weights = self.work + "/weights.safetensors"
        rng = np.random.default_rng(1)
        save_file({"t0": rng.random(1024, dtype=np.float32), **{f"t{i}": rng.random(64 << 18, dtype=np.float32) for i in range(1, self.a.mib // 64 + 1)}}, weights)
        code = self.work + "/weights.py"
        with open(code, "w") as f:
            f.write(MODEL)
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("load", artifact_location="s3://bkt/load"))
        with mlflow.start_run():
            mlflow.pyfunc.log_model(name="model", python_model=code, artifacts={"weights": weights}, registered_model_name="weights", pip_requirements=[])
        mlflow.MlflowClient().set_registered_model_alias("weights", "champion", 1)
        mlflow.set_experiment("elsewhere")  # which the server has itself
        with mlflow.start_run() as r:
            mlflow.log_text("x", "x.txt")
        self.other = f"runs:/{r.info.run_id}/x.txt"
        return "models:/weights@champion"

    def load(self, row, what, uri, cache, run=None, plugin=True, **env):
        """One process; gives what it has read."""
        tmp = tempfile.mkdtemp(dir=self.work, prefix="tmp-")
        env = dict(os.environ, TMPDIR=tmp, MLFLOWFS_CACHE_DIR=cache, MLFLOWFS_PROGRAM=self.a.mlflowfs, MLFLOWFS_PLUGIN="on" if plugin else "off", PYTHONWARNINGS="ignore", **env)
        if plugin:
            env["PYTHONPATH"] = self.a.package
        if run:
            env.update(XDG_RUNTIME_DIR=run, MLFLOWFS_AUTOMOUNT="1")
        before = self.passed()
        p = subprocess.run([sys.executable, "-c", LOAD, what, uri], env=env, capture_output=True, text=True)
        if p.returncode:
            raise SystemExit(f"{row}: {p.stderr}")
        took, got = json.loads(p.stdout.strip().splitlines()[-1])
        left = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(tmp) for f in fs)
        shutil.rmtree(tmp)
        self.times.setdefault(row, []).append((took, self.passed() - before, left))
        return got

    def passed(self):
        with urllib.request.urlopen(self.count) as f:
            return int(f.read())

    def round(self, uri, local, n):
        """Each row once. A row that is cold has a cache of its own."""
        fresh = lambda: tempfile.mkdtemp(dir=self.work, prefix="cache-")
        run, cache, shared = tempfile.mkdtemp(dir=self.work, prefix="run-"), fresh(), fresh()
        want = self.load("local", "model", local, cache, plugin=False)
        same = [
            self.load("stock", "model", uri, cache, plugin=False),
            self.load("mount, cold", "model", uri, cache, run),
            self.load("mount, again", "model", uri, cache, run),
            self.unmount(run) or self.load("no FUSE, cold", "model", uri, shared),
            self.load("no FUSE, again", "model", uri, shared),
        ]
        if any(got != want for got in same):
            raise SystemExit(f"the models differ: {want} {same}")
        run = tempfile.mkdtemp(dir=self.work, prefix="run-")
        self.load("first tensor, stock", "tensor", uri, cache, plugin=False)
        for row, what, known in (("first tensor, mount", "tensor", uri + "/MLmodel"), ("the same from its open", "open", uri + "/MLmodel"),
                                 ("first tensor, unknown", "tensor", self.other), ("the same from its open,", "open", self.other)):
            cold = fresh()
            self.mount(run, cold, known)
            self.load(row, what, uri, cold, run)
            self.unmount(run)
            shutil.rmtree(cold)
        for d in cache, shared:
            shutil.rmtree(d)

    def mount(self, run, cache, known):
        """What MLFLOWFS_AUTOMOUNT would mount, before the time begins."""
        env = dict(os.environ, XDG_RUNTIME_DIR=run, MLFLOWFS_CACHE_DIR=cache)
        subprocess.run([self.a.mlflowfs, "path", "--automount", known], env=env, check=True, capture_output=True)

    def unmount(self, run):
        points = subprocess.run([self.a.mlflowfs, "list", "--json"], capture_output=True, text=True, check=True).stdout
        for m in json.loads(points):
            if m["mountpoint"].startswith(run + "/"):
                subprocess.run([self.a.mlflowfs, "unmount", m["mountpoint"]], check=True)

    def table(self):
        median = {row: [statistics.median(x) for x in zip(*of)] for row, of in self.times.items()}
        print(f"{'':22}{'s':>8} {'all':24}{'MiB from the store':>20}{'MiB in TMPDIR':>15}")
        for row, (took, passed, left) in median.items():
            every = " ".join(f"{t:.2f}" for t, _, _ in self.times[row])
            print(f"{row:22}{took:8.2f} {every:24}{passed / 2**20:20.2f}{left / 2**20:15.1f}")
        for name, row, over, bar in (("first load over stock", "mount, cold", "stock", 0.95), ("second load over local", "mount, again", "local", 1.2),
                                     ("the same without FUSE", "no FUSE, again", "local", 1.2)):
            print(f"{name}: {median[row][0] / median[over][0]:.2f} (bar {bar})")
        print(f"first tensor: {median['first tensor, mount'][0]:.3f} s, {median['the same from its open'][0]:.3f} s of it from its open (bar 0.1 s); of a model unknown to the mount "
              f"{median['first tensor, unknown'][0]:.3f} s, {median['the same from its open,'][0]:.3f} s of it")


def main():
    a = arguments()
    work = tempfile.mkdtemp(prefix="mlflowfs-bench-", dir="/var/tmp")
    os.makedirs(work + "/s3/bkt")
    os.environ.update(KEYS)
    store, p = port(), port()
    try:
        gw = [os.path.join(BIN, "../../bin/versitygw"), "-a", "benchbenchbench", "-s", "benchbenchbench", "-p", f"127.0.0.1:{store}", "--keep-alive", "-q", "posix", work + "/s3"]
        server = [os.path.join(BIN, "mlflow"), "server", "--backend-store-uri", f"sqlite:///{work}/m.db", "--artifacts-destination", work + "/served", "--host", "127.0.0.1", "--port", str(p), "--workers", "1"]
        url = f"http://127.0.0.1:{p}"
        with running(gw, f"http://127.0.0.1:{store}/", work + "/s3.log"), distance(a, store, work + "/link.log") as (far, count), \
                running(server, url + "/health", work + "/server.log", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
            b = Bench(a, work, count)
            os.environ.update(MLFLOW_TRACKING_URI=url, MLFLOW_S3_ENDPOINT_URL=f"http://127.0.0.1:{store}")
            uri = b.seed(url)
            os.environ["MLFLOW_S3_ENDPOINT_URL"] = f"http://127.0.0.1:{far}"
            local = os.path.join(work, "local")
            subprocess.run([a.mlflowfs, "download", "--quiet", "--dst", local, uri], check=True, capture_output=True)
            for n in range(a.rounds):
                b.round(uri, local, n)
            b.table()
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
