"""Asks MLflow's client what URIs mean.

usage: uris.py WORKDIR < QUESTIONS.json

QUESTIONS is a list of [uri]s. Prints a JSON list with, for each, what
download_artifacts and list_artifacts make of it: {"error"} or {"returned",
"tree"}, and {"error"} or {"list"}.
"""

import hashlib
import json
import logging
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

from mlflow.artifacts import download_artifacts, list_artifacts


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


def ask(question):
    i, uri = question
    dst = os.path.join(sys.argv[1], str(i))
    out = {"download": {}, "list": {}}
    try:
        returned = download_artifacts(artifact_uri=uri, dst_path=dst)
        out["download"] = {"returned": os.path.relpath(returned, dst), "tree": tree(dst)}
    except BaseException as e:
        out["download"] = {"error": f"{type(e).__name__}: {e}"[:300]}
    try:
        out["list"] = {"list": sorted([f.path, f.is_dir, f.file_size or 0] for f in list_artifacts(artifact_uri=uri))}
    except BaseException as e:
        out["list"] = {"error": f"{type(e).__name__}: {e}"[:300]}
    return out


with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(ask, enumerate(json.load(sys.stdin))))
sys.stdout.write("\n")
json.dump(answers, sys.stdout)
