"""Asks a server as MLflow's client does, in one environment after another.

Reads from standard input {"cases": [{"uri", "env", "account"}, …], "proxies":
[{"url", "env"}, …], "redirects": [[from, to], …]} and prints {"errors": [why the
client did not ask, or null, …], "proxies": [address or "", …], "kept": [whether a
redirect keeps Authorization, …]}.
"""

import json
import os
import pathlib
import sys

import requests
from requests.utils import prepend_scheme_if_needed, select_proxy

from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

try:
    from kubernetes.config import kube_config
    from mlflow.tracking.request_auth import kubernetes_request_auth_provider as kube
    from mlflow.utils import workspace_context
except ImportError:  # MLflow 2
    kube = None


def set_up(case):
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", **case["env"]})
    if kube:
        kube._file_cache = None
        kube._SERVICE_ACCOUNT_TOKEN_PATH = pathlib.Path(case["account"], "token")
        kube._SERVICE_ACCOUNT_NAMESPACE_PATH = pathlib.Path(case["account"], "namespace")
        kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get("KUBECONFIG", "~/.kube/config")
        workspace_context._WORKSPACE.set(None)


def ask(case):
    set_up(case)
    try:
        http_request(get_default_host_creds(case["uri"]), "/api/2.0/mlflow/experiments/search", "GET", max_retries=0)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    return None


def proxy(case):
    os.environ.clear()
    os.environ.update(case["env"])
    found = requests.Session().merge_environment_settings(case["url"], {}, None, None, None)["proxies"]
    chosen = select_proxy(case["url"], found)
    return prepend_scheme_if_needed(chosen, "http") if chosen else ""


def main():
    given = json.load(sys.stdin)
    json.dump({
        "errors": [ask(c) for c in given["cases"]],
        "proxies": [proxy(c) for c in given["proxies"]],
        "kept": [not requests.Session().should_strip_auth(a, b) for a, b in given["redirects"]],
    }, sys.stdout)


main()
