"""Logs a run with params, tags and metrics of all kinds; prints its id."""

import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

client = MlflowClient()
mlflow.set_experiment("metadata")
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
