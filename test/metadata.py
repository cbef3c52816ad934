"""Logs runs with params, tags and metrics of all kinds to an experiment, and prints
what MLflow's client says of them, to hold a mount against.

usage: metadata.py EXPERIMENT
"""

import json
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric

client = MlflowClient()
mlflow.set_experiment(sys.argv[1])
with mlflow.start_run(run_name="many") as run:
    mlflow.log_params({"lr": 0.1, "a/b": "nested", "empty ": "two\nlines, \"quoted\"", "ünï": "é"})
    mlflow.set_tags({"stage": "test", "x/y": "z"})
    client.log_batch(run.info.run_id, metrics=[Metric("loss", 1 / (i + 1), 1_700_000_000_000 + i, i) for i in range(900)])
    for step, v in enumerate([float("nan"), float("inf"), -float("inf"), 1e-30, 3]):
        mlflow.log_metric("odd/val ue", v, step=step)
with mlflow.start_run(run_name="runs.csv"):
    mlflow.log_metric("auc", 0.75)
with mlflow.start_run(run_name="bare"):
    pass

experiment = client.get_experiment_by_name(sys.argv[1])
out = {}
for run in client.search_runs([experiment.experiment_id]):
    out[run.info.run_id] = {
        "name": run.info.run_name,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {k: [[p.step, p.timestamp, repr(p.value)] for p in client.get_metric_history(run.info.run_id, k)] for k in run.data.metrics},
        "last": {k: repr(v) for k, v in run.data.metrics.items()},
    }
print("\n" + json.dumps(out))
