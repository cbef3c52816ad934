"""What MLflow's own client reads of a Unity Catalog.

usage: unity.py DIR NAME VERSION [VERSION|@ALIAS...]

Prints a JSON object: the names of all models, the versions of NAME, and of each VERSION
its source and status, and downloads it into DIR, by its number.
"""

import json
import os
import sys

import mlflow
from mlflow import MlflowClient

dst, name, *wanted = sys.argv[1:]
c = MlflowClient()


def every(search, *args):
    token, out = None, []
    while True:
        page = search(*args, page_token=token)
        out += page
        token = page.token
        if not token:
            return out


out = {
    "models": sorted(m.name for m in every(c.search_registered_models)),
    "numbers": sorted(int(v.version) for v in every(c.search_model_versions, f"name='{name}'")),
    "created": c.get_registered_model(name).creation_timestamp,
    "versions": {},
}
for which in wanted:
    number, uri = which, f"models:/{name}/{which}"
    if which.startswith("@"):
        number, uri = str(c.get_model_version_by_alias(name, which[1:]).version), f"models:/{name}{which}"
    v = c.get_model_version(name, number)
    os.makedirs(f"{dst}/{which}")
    mlflow.artifacts.download_artifacts(uri, dst_path=f"{dst}/{which}")
    out["versions"][which] = [v.source, v.status, v.run_id or "", v.creation_timestamp, sorted(f.path for f in mlflow.artifacts.list_artifacts(uri))]
print(json.dumps(out))
