"""Reads the demo's store with the real MLflow, and its mount beside it.

usage: demo.py MOUNT
"""

import logging
import os
import sys
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import mlflow
from mlflow import MlflowClient, artifacts
from PIL import Image


def main():
    mount = sys.argv[1]
    client = MlflowClient()
    ids = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(ids)
    assert sorted(r.info.run_name for r in runs) == ["augment", "baseline", "tuned"], runs
    assert sorted(os.listdir(os.path.join(mount, "runs"))) == sorted(r.info.run_id for r in runs)
    tuned = next(r for r in runs if r.info.run_name == "tuned")
    assert tuned.data.metrics == {"auc": 0.902, "loss": 0.355} and tuned.data.params["penalty"] == "l1"
    assert artifacts.load_dict(f"runs:/{tuned.info.run_id}/metrics.json")["auc"] == 0.902
    Image.open(os.path.join(mount, "runs", tuned.info.run_id, "plots/roc.png")).load()
    model = client.get_registered_model("churn")
    assert model.aliases == {"champion": 2, "previous": 1} or model.aliases == {"champion": "2", "previous": "1"}, model.aliases
    for where in ("models:/churn@champion", os.path.join(mount, "models/churn@champion"), os.path.join(mount, "models/churn/latest")):
        assert mlflow.pyfunc.load_model(where).predict([1, 2]) == ["two", "two"], where
    assert mlflow.pyfunc.load_model(os.path.join(mount, "models/churn/production")).predict([1]) == ["one"]
    print("ok")


if __name__ == "__main__":
    main()
