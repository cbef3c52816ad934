"""What the Databricks SDK takes for a workspace, by JSON cases on its standard input: a
profile, or null, and an environment. Prints for each its host, and its token or its
client's id, or null where it takes none."""

import json
import os
import sys

from databricks.sdk.config import Config
from databricks.sdk.credentials_provider import credentials_strategy


@credentials_strategy("none", [])
def nobody(cfg):
    return lambda: {}


out = []
for case in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(case["env"])
    try:
        c = Config(**({"profile": case["profile"]} if case["profile"] else {}), credentials_strategy=nobody)
        login = c.token or c.client_id
        out.append([c.host, login, c.workspace_id or ""] if c.host and login else None)
    except Exception:
        out.append(None)
print(json.dumps(out))
