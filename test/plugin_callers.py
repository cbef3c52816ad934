"""Prints each function of MLflow's that downloads to a directory that it does not name, as
module and name, a line each.
"""

import ast
import os

import mlflow

ROOT = os.path.dirname(mlflow.__file__)
DOWNLOADS = {"_download_artifact_from_uri", "download_artifacts", "_download_artifacts"}


def named(call):
    return isinstance(call.func, (ast.Name, ast.Attribute)) and (call.func.id if isinstance(call.func, ast.Name) else call.func.attr)


def look(node, module, function):
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        if isinstance(child, ast.Call) and named(child) in DOWNLOADS:
            if len(child.args) < 2 and not {"output_path", "dst_path"} & {k.arg for k in child.keywords}:
                print(module, inside)
        look(child, module, inside)


for dir, _, files in os.walk(ROOT):
    for name in files:
        if name.endswith(".py"):
            module = os.path.relpath(os.path.join(dir, name), os.path.dirname(ROOT))[:-3].replace(os.sep, ".").removesuffix(".__init__")
            with open(os.path.join(dir, name), encoding="utf-8") as f:
                look(ast.parse(f.read()), module, "")
