"""Prints what MLflow's client says of an experiment's runs, to hold a mount against.

usage: metadata.py EXPERIMENT
"""

import json
import sys

from mlflow import MlflowClient

client = MlflowClient()
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
