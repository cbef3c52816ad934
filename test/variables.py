"""Prints, as a JSON list, the variables that MLflow's client and its libraries look
for as they read.

usage: variables.py URI...    each is listed, and downloaded
"""

import json
import logging
import os
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

import client  # which imports all that reads
from mlflow.artifacts import download_artifacts, list_artifacts

asked = set()
get = os._Environ.__getitem__


def spy(self, name):
    asked.add(name)
    return get(self, name)


def main():
    os._Environ.__getitem__ = spy
    for uri in sys.argv[1:]:
        for read in (list_artifacts, download_artifacts):
            try:
                read(artifact_uri=uri, **({"dst_path": tempfile.mkdtemp()} if read is download_artifacts else {}))
            except Exception as e:
                print(uri, read.__name__, e, file=sys.stderr)
                sys.exit(1)
    print(json.dumps(sorted(asked)))


main()
