"""Logs a wide set of runs and models with the real client, to MLFLOW_TRACKING_URI.

Prints one JSON object: ids by name, and `logged`, the bytes (base64) of every
artifact of the run `wide` as they were given to the client.
"""

import base64
import json
import logging
import os
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import mlflow
import numpy as np
from mlflow import MlflowClient

V1 = mlflow.__version__.startswith("1.")  # has no aliases
V3 = not mlflow.__version__.startswith(("1.", "2."))
SERVED = os.environ["MLFLOW_TRACKING_URI"].startswith("http")
NAMES = ["sp ace.txt", "100%.txt", "plus+.txt", "é.txt", "😀.txt", ".dot", "amp&=.txt", "quote'\".txt", "semi;colon.txt", "back\\slash", "[x]*.txt", "UPPER", "upper"]
MANGLED = ["h#ash.txt", "q?mark.txt"]  # the client cuts these when it uploads, and can't download a # at all
if SERVED and not V3:
    NAMES.remove("😀.txt")  # MLflow 2's server hangs up when it is asked for it


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


def log_model(name, registered=None, artifacts=None):
    """The artifacts lie in directories of the model's."""
    kw = {"name": name} if V3 else {"artifact_path": name}
    return mlflow.pyfunc.log_model(python_model=Echo(), artifacts=artifacts, pip_requirements=[], registered_model_name=registered, **kw)


def files(root):
    """The wide tree: empty, deep, many, odd names, big."""
    tree = {"empty": b"", "deep/" + "/".join(str(i) for i in range(12)) + "/leaf.txt": b"leaf", "big.bin": os.urandom(64 << 20)}
    for i in range(300):
        tree[f"many/file-{i:03}.txt"] = b"%d\n" % i
    for n in NAMES:
        tree["names/" + n] = ("this is " + n).encode()
    tree["names/dir with 100% & é/.hidden/x"] = b"y"
    for path, content in tree.items():
        p = os.path.join(root, path)
        os.makedirs(os.path.dirname(p), exist_ok=True)
        with open(p, "wb") as f:
            f.write(content)
    return tree


def main():
    out = {"v3": V3}
    client = MlflowClient()
    mlflow.set_experiment("wide")
    with tempfile.TemporaryDirectory() as d, mlflow.start_run(run_name="wide") as run:
        out["wide"] = run.info.run_id
        tree = files(d)
        mlflow.log_artifacts(d)
        mlflow.log_dict({"a": [1, 2.5, "drei"], "b": None}, "doc/dict.json")
        mlflow.log_text("zwölf Boxkämpfer\n", "doc/text.txt")
        mlflow.log_image(np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3), "doc/image.png")
        mlflow.log_params({"lr": 0.1, "layers": 3})
        mlflow.log_metrics({"loss": 0.5}, step=1)
        mlflow.log_metrics({"loss": float("nan"), "auc": 0.9}, step=2)
        log_model("model", "echo")
    out["logged"] = {k: base64.b64encode(v).decode() for k, v in tree.items() if k.startswith(("names/", "empty", "deep/"))}
    with tempfile.TemporaryDirectory() as d, mlflow.start_run(run_name="mangled") as run:
        out["mangled"] = run.info.run_id
        for n in MANGLED:
            with open(os.path.join(d, n), "w") as f:
                f.write("this is " + n)
            mlflow.log_artifact(os.path.join(d, n), "names")
    with tempfile.TemporaryDirectory() as d, mlflow.start_run(run_name="second") as run:
        out["second"] = run.info.run_id
        log_model("model", "echo")
        os.makedirs(os.path.join(d, "data", "deeper"))
        for name in "data/a.txt", "data/deeper/b.txt":
            with open(os.path.join(d, name), "w") as f:
                f.write(name)
        log_model("model2", "with@sign and space", {"data": os.path.join(d, "data")})
        log_model("model2", " sp ace.d'or", {"data": os.path.join(d, "data")})
        # A directory of the run beside the logged model of the same name.
        mlflow.log_text("the run's", "model/extra/from-the-run.txt")
    if not V1:
        client.set_registered_model_alias("echo", "champion", "1")
        client.set_registered_model_alias("echo", "3", "2")
        client.set_registered_model_alias("with@sign and space", "best", "1")
        client.set_registered_model_alias(" sp ace.d'or", "best", "1")
    client.transition_model_version_stage("echo", "1", "Production")
    client.transition_model_version_stage("echo", "2", "Staging")
    with mlflow.start_run(run_name="empty") as run:
        out["empty"] = run.info.run_id
    with mlflow.start_run(run_name="deleted") as run:
        out["deleted"] = run.info.run_id
        mlflow.log_text("gone", "gone.txt")
    client.delete_run(out["deleted"])
    running = client.create_run(client.get_experiment_by_name("wide").experiment_id, run_name="running")
    out["running"] = running.info.run_id
    client.log_text(out["running"], "so far", "log.txt")
    for name in ["twice", "twice", "a/b", "..", "100%2F"]:
        with mlflow.start_run(run_name=name) as run:
            out.setdefault("runs", []).append([name, run.info.run_id])
    for name in ["odd/name", "..", "100%2F", "é😀"]:
        mlflow.create_experiment(name)
    gone = mlflow.create_experiment("deleted experiment")
    client.delete_experiment(gone)
    if V3:
        out["models"] = [m.model_id for m in mlflow.search_logged_models(experiment_ids=[client.get_run(out["wide"]).info.experiment_id], output_format="list")]
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
