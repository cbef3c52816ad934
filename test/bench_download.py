"""Measures `mlflowfs download` beside mlflow.artifacts.download_artifacts and
`rclone copy`, from the same stores, in one run.

usage: bench_download.py MLFLOWFS [SIZE_MIB] [ROUNDS]

One large file and 1,000 files of 4 KiB lie in an S3 store (versitygw), as a
run's own artifacts, where all three are given the storage URI; behind a tracking server whose artifacts destination is
that store; and behind one that has them on its own disk. All of it, and what
is downloaded, is in memory (/dev/shm), so that no disk is measured. Each row is
measured in turns and is the median of the rounds. mlflowfs and rclone are
timed with their start; MLflow's client is not (its import takes seconds).
rclone reads the store itself: it knows no tracking server. "tuned" is rclone
with 32 transfers and 32 checkers.
"""

import contextlib
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
os.environ.update(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false", MLFLOW_DISABLE_TELEMETRY="true", GIT_PYTHON_REFRESH="quiet", AWS_EC2_METADATA_DISABLED="true")

BIN = os.path.dirname(sys.executable)
FILES = 1000


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(args, url, log, **env):
    with open(log, "w") as out:
        p = subprocess.Popen(args, stdout=out, stderr=out, env=dict(os.environ, **env), start_new_session=True)
    try:
        for _ in range(900):
            try:
                urllib.request.urlopen(url)
                break
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit("a server does not come up; see " + log)
        yield
    finally:
        os.killpg(p.pid, signal.SIGTERM)
        p.wait()


@contextlib.contextmanager
def tracking(work, name, destination):
    p = port()
    args = [os.path.join(BIN, "mlflow"), "server", "--backend-store-uri", f"sqlite:///{work}/{name}.db", "--artifacts-destination", destination,
            "--host", "127.0.0.1", "--port", str(p), "--workers", "2"]
    with running(args, f"http://127.0.0.1:{p}/health", f"{work}/{name}.log", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
        yield f"http://127.0.0.1:{p}"


def timed(f):
    begin = time.perf_counter()
    f()
    return time.perf_counter() - begin


def checked(dst, want):
    files = sum(len(f) for _, _, f in os.walk(dst))
    size = sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(dst) for n in names)
    if (files, size) != want:
        raise SystemExit(f"{files} files of {size} bytes came, and not {want}")


def main():
    binary = os.path.abspath(sys.argv[1])
    mib, rounds = int((sys.argv[2:3] or [1024])[0]), int((sys.argv[3:4] or [4])[0])
    rclone = os.path.join(BIN, "rclone")
    work = tempfile.mkdtemp(prefix="mlflowfs-bench-", dir="/dev/shm")
    os.makedirs(work + "/s3/bkt")
    s3 = port()
    os.environ.update(AWS_ACCESS_KEY_ID="benchbenchbench", AWS_SECRET_ACCESS_KEY="benchbenchbench", AWS_REGION="us-east-1", MLFLOW_S3_ENDPOINT_URL=f"http://127.0.0.1:{s3}",
                      RCLONE_CONFIG_R_TYPE="s3", RCLONE_CONFIG_R_PROVIDER="Other", RCLONE_CONFIG_R_ENV_AUTH="true", RCLONE_CONFIG_R_ENDPOINT=f"http://127.0.0.1:{s3}", RCLONE_CONFIG="/dev/null")
    import boto3
    import mlflow
    from mlflow.artifacts import download_artifacts

    rows, versions = {}, subprocess.run([rclone, "version"], capture_output=True, text=True).stdout.split("\n")[0]
    try:
        with running([os.path.join(BIN, "../../bin/versitygw"), "-a", "benchbenchbench", "-s", "benchbenchbench", "-p", f"127.0.0.1:{s3}", "--keep-alive", "-q", "posix", work + "/s3"],
                     f"http://127.0.0.1:{s3}/", work + "/s3.log"), tracking(work, "on-s3", "s3://bkt/served") as on_s3, tracking(work, "on-disk", work + "/disk") as on_disk:
            big = work + "/big.bin"
            with open(big, "wb") as f:
                for _ in range(mib):
                    f.write(os.urandom(1 << 20))
            many = work + "/many"
            os.makedirs(many)
            for i in range(FILES):
                with open(f"{many}/{i:04}", "wb") as f:
                    f.write(os.urandom(4096))
            client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3}")
            places = {}
            for name, url, location in (("S3, direct", on_s3, "s3://bkt/own"), ("server on S3", on_s3, None), ("server on its disk", on_disk, None)):
                mlflow.set_tracking_uri(url)
                run = mlflow.MlflowClient().create_run(mlflow.create_experiment(name, artifact_location=location)).info
                places[name] = (url, run.run_id, run.artifact_uri)
                if url == on_disk:
                    root = run.artifact_uri.replace("mlflow-artifacts:", work + "/disk")
                    shutil.copytree(many, root + "/many")
                    shutil.copy(big, root + "/big.bin")
                else:
                    root = run.artifact_uri.replace("s3://bkt/", "").replace("mlflow-artifacts:/", "served/")
                    client.upload_file(big, "bkt", root + "/big.bin")
                    for n in os.listdir(many):
                        client.upload_file(f"{many}/{n}", "bkt", f"{root}/many/{n}")
                mlflow.MlflowClient().set_terminated(run.run_id)

            def measure(row, peer, want, f):
                dst = tempfile.mkdtemp(dir=work)
                try:
                    rows.setdefault(row, {}).setdefault(peer, []).append(timed(lambda: f(dst)))
                    checked(dst, want)
                finally:
                    shutil.rmtree(dst)

            for turn in range(rounds):
                for name, (url, run, uri) in places.items():
                    mlflow.set_tracking_uri(url)
                    for what, path, want in ((f"{mib} MiB", "big.bin", (1, mib << 20)), (f"{FILES} x 4 KiB", "many", (FILES, FILES * 4096))):
                        row, env = f"{what}, {name}", dict(os.environ, MLFLOW_TRACKING_URI=url)
                        named = f"runs:/{run}/{path}" if uri.startswith("mlflow-artifacts:") else f"{uri}/{path}"
                        peers = {
                            "mlflowfs": lambda dst: subprocess.run([binary, "download", "--quiet", "--dst", dst, named], env=env, check=True, stdout=subprocess.DEVNULL),
                            "mlflow": lambda dst: download_artifacts(named, dst_path=dst),
                        }
                        if name == "S3, direct":
                            remote = "R:" + named.removeprefix("s3://")
                            peers["rclone"] = lambda dst: subprocess.run([rclone, "copy", remote, dst], check=True)
                            peers["tuned"] = lambda dst: subprocess.run([rclone, "copy", "--transfers", "32", "--checkers", "32", remote, dst], check=True)
                        # Each begins once: what is read first finds nothing warm.
                        names = list(peers)
                        for peer in names[turn % len(names):] + names[:turn % len(names)]:
                            measure(row, peer, want, peers[peer])
    finally:
        shutil.rmtree(work, ignore_errors=True)

    print(f"downloads: MLflow {mlflow.__version__}, {versions}, {os.cpu_count()} cores, {rounds} rounds, medians (spread); ratio: how much longer the fastest peer takes")
    print(f"{'':<34}{'mlflowfs':>24}{'mlflow':>24}{'rclone':>24}{'rclone tuned':>24}{'ratio':>8}")
    for row, peers in rows.items():
        cells, mid = "", {p: statistics.median(t) for p, t in peers.items()}
        for p in ("mlflowfs", "mlflow", "rclone", "tuned"):
            t = peers.get(p)
            cells += f"{f'{mid[p]:.3f} s ({min(t):.2f}-{max(t):.2f})' if t else '-':>24}"
        print(f"{row:<34}{cells}{min(v for p, v in mid.items() if p != 'mlflowfs') / mid['mlflowfs']:>7.1f}x")
    print(json.dumps(rows), file=sys.stderr)


if __name__ == "__main__":
    main()
