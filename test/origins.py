"""Logs one tree and one model to several artifact locations with the real
client, and fetches them again.

usage: origins.py seed < {name: location}    to MLFLOW_TRACKING_URI
       origins.py fetch WORKDIR < {key: arguments of download_artifacts}

seed prints {name: {run, odd, uri, model, model_id}}, where model is registered
and has the alias champion, and odd is a run with names that no tracking server
takes, which a store takes itself. fetch prints {key: {path, list, error}}: where
download_artifacts put it, and what list_artifacts gives.
"""

import json
import logging
import os
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import mlflow
from mlflow import MlflowClient, artifacts

V3 = not mlflow.__version__.startswith("2.")
NAMES = ["sp ace.txt", "100%.txt", "plus+.txt", "é.txt", ".dot", "amp&=.txt", "quote'\".txt", "semi;colon.txt", "[x]*.txt", "UPPER", "upper"]
ODD = ["😀.txt", "h#ash.txt", "q?mark.txt", "a%41b", "end?", "x;", 'quo"te']


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


def write(root, files):
    for name, content in files.items():
        p = os.path.join(root, name)
        os.makedirs(os.path.dirname(p), exist_ok=True)
        with open(p, "wb") as f:
            f.write(content)


def tree(root):
    files = {"a.txt": b"hello", "empty": b"", "d/e/f.txt": b"deep", "d/g.txt": b"g" * 1000, "big.bin": os.urandom((20 << 20) + 17)}
    for n in NAMES:
        files["names/" + n] = ("this is " + n).encode()
    for i in range(40):
        files[f"many/{i:03}"] = b"%d" % i
    write(root, files)


def seed():
    out = {}
    for name, location in json.load(sys.stdin).items():
        experiment = mlflow.create_experiment(name, artifact_location=location or None)
        with tempfile.TemporaryDirectory() as d, mlflow.start_run(experiment_id=experiment) as run:
            tree(d)
            mlflow.log_artifacts(d)
            kw = {"name": "model"} if V3 else {"artifact_path": "model"}
            info = mlflow.pyfunc.log_model(python_model=Echo(), pip_requirements=[], registered_model_name="model of " + name, **kw)
        MlflowClient().set_registered_model_alias("model of " + name, "champion", "1")
        odd = ""
        if run.info.artifact_uri.startswith(("s3:", "gs:", "wasbs:", "r2:", "sftp:")):
            with tempfile.TemporaryDirectory() as d, mlflow.start_run(experiment_id=experiment) as odd_run:
                write(d, {n: ("this is " + n).encode() for n in ODD})
                mlflow.log_artifacts(d)
                odd = odd_run.info.run_id
        out[name] = {"run": run.info.run_id, "odd": odd, "uri": run.info.artifact_uri, "model": "model of " + name, "model_id": info.model_id if V3 else ""}
    print("\n" + json.dumps(out))


def fetch(work):
    out = {}
    for i, (key, kw) in enumerate(json.load(sys.stdin).items()):
        got = out[key] = {}
        try:
            got["path"] = artifacts.download_artifacts(dst_path=os.path.join(work, str(i)), **kw)
            got["list"] = [{"path": f.path, "is_dir": f.is_dir, "file_size": f.file_size or 0} for f in artifacts.list_artifacts(**kw)]
        except Exception as e:
            got["error"] = f"{type(e).__name__}: {e}"
    print("\n" + json.dumps(out))


if __name__ == "__main__":
    {"seed": seed, "fetch": fetch}[sys.argv[1]](*sys.argv[2:])
