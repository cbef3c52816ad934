"""Loads artifacts through a mount with ordinary programs, and with MLflow.

usage: load.py MOUNT SEED.json

Exits with 0 when both give the same.
"""

import json
import logging
import os
import sys
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import mlflow
import pandas as pd
from mlflow import artifacts
from PIL import Image, ImageChops


def main():
    mount, seed = sys.argv[1:]
    with open(seed) as f:
        seed = json.load(f)
    run, uri = os.path.join(mount, "runs", seed["wide"]), "runs:/" + seed["wide"]
    with open(os.path.join(run, "doc/dict.json")) as f:
        assert json.load(f) == artifacts.load_dict(uri + "/doc/dict.json")
    assert open(os.path.join(run, "doc/text.txt"), encoding="utf-8").read() == artifacts.load_text(uri + "/doc/text.txt")
    ours, theirs = Image.open(os.path.join(run, "doc/image.png")), artifacts.load_image(uri + "/doc/image.png")
    assert ours.size == theirs.size and ImageChops.difference(ours.convert("RGB"), theirs.convert("RGB")).getbbox() is None
    frame = pd.DataFrame({"x": [1, 2, 3]})
    for model in ("echo@champion", "echo/latest", "echo/staging"):
        got = mlflow.pyfunc.load_model(os.path.join(mount, "models", model)).predict(frame)
        assert got.equals(frame), (model, got)
    with open(os.path.join(mount, "experiments/wide/wide/run.json")) as f:
        doc = json.load(f)
    want = mlflow.MlflowClient().get_run(seed["wide"])
    assert doc["info"]["run_id"] == seed["wide"] and doc["info"]["end_time"] == want.info.end_time
    assert {p["key"]: p["value"] for p in doc["data"]["params"]} == want.data.params
    assert {m["key"]: m["step"] for m in doc["data"]["metrics"]} == {"loss": 2, "auc": 2}, doc["data"]["metrics"]
    assert {t["key"]: t["value"] for t in doc["data"]["tags"]} == want.data.tags
    print("ok")


if __name__ == "__main__":
    main()
