"""Logs one run, and one version of the model `shared`, in each of some workspaces of
the server MLFLOW_TRACKING_URI; all but `default` are made.

usage: workspaces.py NAME...
Prints {"spaces": the ids of the runs, by their workspaces}.
"""

import json
import logging
import sys

logging.disable(logging.WARNING)

import mlflow
from mlflow import MlflowClient


def main():
    runs = {}
    for name in sys.argv[1:]:
        if name != "default":
            mlflow.create_workspace(name)
        mlflow.set_workspace(name)
        client = MlflowClient()
        mlflow.set_experiment("of " + name)
        with mlflow.start_run() as run:
            mlflow.log_text("of " + name, "doc/text.txt")
            mlflow.log_text("model of " + name, "model/MLmodel")
        client.create_registered_model("shared")
        client.create_model_version("shared", f"runs:/{run.info.run_id}/model", run.info.run_id)
        client.set_registered_model_alias("shared", "champion", "1")
        runs[name] = run.info.run_id
    print(json.dumps({"spaces": runs}))


if __name__ == "__main__":
    main()
