"""What the plug-in leaves to MLflow, and where it must not go by what others say.

usage: plugin_others.py WHAT SEED.json

WHAT is one of the cases below; it prints what the download gave, as JSON.
"""

import json
import os
import sys
import tempfile

import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts, load_dict
from mlflow.store.artifact import artifact_repository_registry as registry
from plugin_theirs import Others, Tenant


def read(path):
    with open(path) as f:
        return f.read()


def main():
    what, seed = sys.argv[1], json.load(open(sys.argv[2]))
    uri = f"runs:/{seed['run']}/doc/text.txt"
    if what == "headers":
        from mlflow.tracking.request_header import registry as headers

        headers._request_header_provider_registry.register(Tenant)
    if what == "repository":
        for scheme in "mlflow-artifacts", "s3":
            registry._artifact_repository_registry.register(scheme, Others)
    if what == "no destination":
        os.chdir(tempfile.mkdtemp())
        with open("text.txt", "w") as f:
            f.write("mine")
        path = download_artifacts(uri, dst_path="")
        print(json.dumps([read(path), read("text.txt")]))
    elif what == "temporary":
        print(json.dumps([load_dict(f"runs:/{seed['run']}/doc/dict.json"), os.listdir(tempfile.gettempdir())]))
    elif what == "questions":  # the tracking URI leads nowhere
        uris = f"models:/{seed['prefix']}sk@champion", f"models:/{seed['prefix']}sk/1/MLmodel", f"models:/{seed['models'][0]}", uri
        print(json.dumps([download_artifacts(u) for u in uris]))
    elif what == "lists":
        second = f"runs:/{seed['second']}"
        lists = [list_artifacts(u) for u in (f"{second}/sk", f"{second}/data/code", f"models:/{seed['prefix']}sk@champion", f"models:/{seed['models'][0]}")]
        lists += [list_artifacts(run_id=seed["run"]), MlflowClient().list_artifacts(seed["run"], "odd")]
        print(json.dumps([[[f.path, f.is_dir, f.file_size] for f in l] for l in lists]))
    elif what == "outage":
        try:
            path = download_artifacts(f"models:/{seed['prefix']}sk@champion/MLmodel")
            print(json.dumps([os.path.basename(path), len(list_artifacts(f"runs:/{seed['run']}/odd")), "flavors" in read(path)]))
        except Exception as e:
            print(json.dumps(type(e).__name__))
    elif what == "names":
        print(json.dumps([registry.get_registered_artifact_repositories()[s].__name__ for s in ("gs", "wasbs", "abfss", "s3")]))
    else:
        print(json.dumps(read(download_artifacts(uri))))


if __name__ == "__main__":
    main()
