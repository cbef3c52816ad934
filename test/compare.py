"""Compares a mount with what the MLflow client downloads.

usage: compare.py MOUNT SEED.json WORKDIR

Prints one JSON list of [what, mounted path, downloaded path] for the caller
to hold against each other with diff -r.
"""

import json
import logging
import os
import sys
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import mlflow
from mlflow.artifacts import download_artifacts


def main():
    mount, seed, work = sys.argv[1:]
    with open(seed) as f:
        seed = json.load(f)
    pairs = []

    def add(what, mounted, **kw):
        dst = os.path.join(work, str(len(pairs)))
        pairs.append([what, os.path.join(mount, mounted), download_artifacts(dst_path=dst, **kw)])

    for name in ("wide", "second", "running"):
        add(f"run_id={name}", "runs/" + seed[name], run_id=seed[name])
    for path in ("many", "deep", "doc", "names/.dot", "model", "big.bin", "empty"):
        add(f"runs:/wide/{path}", f"runs/{seed['wide']}/{path}", artifact_uri=f"runs:/{seed['wide']}/{path}")
    add("runs:/second/model", f"runs/{seed['second']}/model", artifact_uri=f"runs:/{seed['second']}/model")
    add("runs:/second/model2", f"runs/{seed['second']}/model2", artifact_uri=f"runs:/{seed['second']}/model2")
    for uri in ("echo/1", "echo/2", "echo/latest", "echo/Latest", "echo/Production", "echo/production", "echo/STAGING", "echo@champion", "echo@3", " sp ace.d'or/1", " sp ace.d'or@best"):
        add("models:/" + uri, "models/" + uri, artifact_uri="models:/" + uri)
    # A name with an @ has no models:/<name>/<version> in any client, and no
    # alias in MLflow 2's, which splits at the first @.
    if seed["v3"]:
        add("models:/with@sign and space@best", "models/with@sign and space@best", artifact_uri="models:/with@sign and space@best")
    for model in ("with@sign and space/1", "with@sign and space@best"):
        add(model, f"models/{model}/python_model.pkl", artifact_uri=f"runs:/{seed['second']}/model2/python_model.pkl")
    add("models:/echo@champion/MLmodel", "models/echo@champion/MLmodel", artifact_uri="models:/echo@champion/MLmodel")
    for m in seed.get("models", []):
        add("models:/" + m, "models/" + m, artifact_uri="models:/" + m)
    json.dump(pairs, sys.stdout)


if __name__ == "__main__":
    main()
