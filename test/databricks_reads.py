"""What MLflow's own client reads of a Databricks workspace.

usage: databricks_reads.py DIR URI...

Prints a JSON object: the experiments, their runs and logged models, and the registered
models with their aliases; and downloads each URI into DIR, by its place among them.
"""

import json
import os
import sys
import urllib.request

import mlflow
from mlflow import MlflowClient

dst, *uris = sys.argv[1:]
c = MlflowClient()
experiments = c.search_experiments()
ids = [e.experiment_id for e in experiments]
out = {
    "experiments": sorted(e.name for e in experiments),
    "runs": sorted(r.info.run_id for r in c.search_runs(ids)),
    "logged": sorted(m.model_id for m in c.search_logged_models(ids)),
    "models": {},
}
for m in c.search_registered_models():
    out["models"][m.name] = {}
    try:
        out["models"][m.name] = {k: str(v) for k, v in c.get_registered_model(m.name).aliases.items()}
    except mlflow.MlflowException:
        pass  # it lists what has the tag of MLflow's prompts, and does not give it by its name
for i, uri in enumerate(uris):
    urllib.request.urlopen(os.environ["DATABRICKS_HOST"] + "/mark")  # which counts apart what is asked for it
    os.makedirs(f"{dst}/{i}")
    mlflow.artifacts.download_artifacts(uri, dst_path=f"{dst}/{i}")
print(json.dumps(out))
