"""Asks MLflow's client what URIs mean, each time in an environment of its own.

Reads lines of JSON from standard input: {"env", "account", "cwd", "dst", "uris",
"threads"}; and
writes one for each: a list with, for each URI, what download_artifacts and
list_artifacts make of it: {"download": {"error"} or {"returned", "tree"}, "list":
{"error"} or {"list"}}. A process that has everything imported, and nothing asked,
forks for each line: no cache holds what another environment gave.
"""

import hashlib
import json
import logging
import os
import pathlib
import select
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

import azure.storage.blob
import azure.storage.blob._shared.policies
import boto3
import google.cloud.storage
import google.cloud.storage.retry
import mlflow.store.artifact.azure_blob_artifact_repo
import mlflow.store.artifact.gcs_artifact_repo
import mlflow.store.artifact.mlflow_artifacts_repo
import mlflow.store.artifact.models_artifact_repo
import mlflow.store.artifact.runs_artifact_repo
import mlflow.store.artifact.s3_artifact_repo
import mlflow.store.tracking.file_store
import mlflow.store.tracking.rest_store
import mlflow.store.tracking.sqlalchemy_store
from mlflow.artifacts import download_artifacts, list_artifacts

# A host that can't be reached is asked for minutes: as often, and sooner.
azure.storage.blob._shared.policies.StorageRetryPolicy.sleep = lambda self, settings, transport: None
google.cloud.storage.retry.DEFAULT_RETRY._timeout = 3

try:
    from kubernetes.config import kube_config
    from mlflow.tracking.request_auth import kubernetes_request_auth_provider as kube
except ImportError:  # MLflow 2
    kube = None

PATIENCE = 200  # seconds for one line


def tree(root):
    """Every name below root: a file's digest, or "" for a directory."""
    out = {}
    for dir, dirs, files in os.walk(root):
        for d in dirs:
            out[os.path.relpath(os.path.join(dir, d), root)] = ""
        for f in files:
            with open(os.path.join(dir, f), "rb") as b:
                out[os.path.relpath(os.path.join(dir, f), root)] = hashlib.sha256(b.read()).hexdigest()
    return out


def ask(uri, dst):
    out = {"download": {}, "list": {}}
    try:
        returned = download_artifacts(artifact_uri=uri, dst_path=dst)
        out["download"] = {"returned": os.path.relpath(returned, dst), "tree": tree(dst)}
    except BaseException as e:
        out["download"] = {"error": f"{type(e).__name__}: {e}"[:400]}
    try:
        out["list"] = {"list": sorted([f.path, f.is_dir, f.file_size or 0] for f in list_artifacts(artifact_uri=uri))}
    except BaseException as e:
        out["list"] = {"error": f"{type(e).__name__}: {e}"[:400]}
    return out


def answer(line):
    """What the child does: it prints to nobody."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.environ.clear()
    os.environ.update(line["env"])
    os.chdir(line["cwd"])
    if kube:
        kube._SERVICE_ACCOUNT_TOKEN_PATH = pathlib.Path(line["account"], "token")
        kube._SERVICE_ACCOUNT_NAMESPACE_PATH = pathlib.Path(line["account"], "namespace")
        kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get("KUBECONFIG", "~/.kube/config")
    # boto3's first client must not be made by several threads at once.
    with ThreadPoolExecutor(line["threads"]) as pool:
        return list(pool.map(lambda q: ask(q[1], os.path.join(line["dst"], str(q[0]))), enumerate(line["uris"])))


def main():
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with os.fdopen(write, "w") as w:
                json.dump(answer(json.loads(line)), w)
            os._exit(0)
        os.close(write)
        said, late = b"", False
        while True:
            if not select.select([read], [], [], PATIENCE)[0]:
                os.kill(child, signal.SIGKILL)
                late = True
                break
            some = os.read(read, 1 << 16)
            if not some:
                break
            said += some
        os.close(read)
        os.waitpid(child, 0)
        print("null" if late or not said else said.decode(), flush=True)


if __name__ == "__main__":
    main()
