"""Makes runs in an experiment, or reads a table, and prints the rows as JSON.

    tables.py make EXPERIMENT N    what mlflow.search_runs gives, newest first
    tables.py read FILE            what pandas reads of a CSV file
"""

import json
import sys


def filled(row):
    return {k: str(v) for k, v in row.items() if v is not None and v == v and v != ""}


if sys.argv[1] == "make":
    import mlflow
    from mlflow.entities import Metric, Param

    client, experiment, n = mlflow.MlflowClient(), sys.argv[2], int(sys.argv[3])
    for i in range(n):
        run = client.create_run(experiment, start_time=1_700_000_000_000 + i, run_name=f"run {i}").info.run_id
        params = [Param("depth", str(i)), Param("a b", 'a,"b"\nbreak, é')] + [Param("rare", "x")] * (i % 3 == 0 and i < 9)
        client.log_batch(run, metrics=[Metric("loss", i / 4, 1, 1)], params=params)
    frame = mlflow.search_runs([experiment], max_results=50_000)
    rows = [filled(r) for r in frame.to_dict("records")]
else:
    import pandas

    rows = [filled(r) for r in pandas.read_csv(sys.argv[2], dtype=str, keep_default_na=False).to_dict("records")]
print(json.dumps(rows))
