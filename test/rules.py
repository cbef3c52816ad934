"""Holds rules of ours against MLflow's and PyYAML's own code.

Reads from standard input {"meta": [[name, version, ours], …], "paths": [[path,
"" or why we take the server to misread it], …]} and says where they differ.
"""

import json
import os
import re
import sys
import tempfile

from mlflow.utils.uri import validate_path_is_safe

try:
    from mlflow.utils.yaml_utils import write_yaml
except ImportError:  # MLflow 2
    from mlflow.utils.file_utils import write_yaml


def main():
    given, wrong = json.load(sys.stdin), []
    with tempfile.TemporaryDirectory() as d:
        for name, version, ours in given["meta"]:
            write_yaml(d, "f", {"model_name": name or None, "model_version": version or None}, overwrite=True, ensure_yaml_extension=False)
            with open(os.path.join(d, "f"), newline="", encoding="utf-8") as f:
                theirs = f.read()
            if theirs != ours:
                wrong.append(f"registered_model_meta of {name!r}: {theirs!r}, ours {ours!r}")
    for path, why in given["paths"]:
        try:
            misread = validate_path_is_safe(path) != path
        except Exception:
            misread = True
        if misread and not why:
            wrong.append(f"the server misreads {path!r}, and we would ask for it")
        # An escaped control character comes back as its escape; we refuse it with the rest.
        if why and not misread and not re.search("%([01][0-9a-f]|7f)", path, re.IGNORECASE):
            wrong.append(f"the server reads {path!r} well, and we refuse it: {why}")
    print("\n".join(wrong) or "ok")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
