"""usage: log_text.py RUN PATH TEXT: logs a text as an artifact of a run."""

import sys

from mlflow import MlflowClient

run, path, text = sys.argv[1:]
MlflowClient().log_text(run, text, path)
