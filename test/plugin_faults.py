"""Plants faults in each function of the plug-in, and tells how MLflow's client fares.

usage: plugin_faults.py SEED.json PROGRAM...

Each function of the plug-in raises each kind of exception, with the program that is
installed; and without such a fault the program is each of PROGRAM in turn. Prints a line
of JSON for each case: {"case", "function", "met": whether the fault was, "wrong": what
MLflow gave otherwise than without the plug-in, "warned", "seconds"}. The first one has no
plug-in.

Each case is in a process of its own, forked of one that has MLflow imported.
"""

import ast
import json
import logging
import os
import sys
import tempfile
import time
import types
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.INFO)

import mlflow
import mlflow.sklearn
import mlflowfs
import mlflowfs_plugin
import pandas as pd
import sklearn.linear_model
from mlflow.artifacts import download_artifacts, list_artifacts, load_text
from mlflow.store.artifact import artifact_repository_registry as registry

KINDS = {
    "MemoryError": "MemoryError()", "OSError": "OSError(5, 'Input/output error')", "UnicodeError": "b'\\xff'.decode('ascii')",
    "RuntimeError": "RuntimeError('broken')", "RecursionError": "RecursionError()", "ImportError": "ImportError('no such module')",
    "KeyError": "KeyError('x')",
}
SOURCES = {"mlflowfs_plugin": mlflowfs_plugin.__file__, "mlflowfs._mlflow": os.path.join(os.path.dirname(mlflowfs.__file__), "_mlflow.py")}
AT_IMPORT = {"_factory"}  # runs when MLflow is imported: see TestPluginCannotBreakTheImport
met = []

try:
    import skops.io  # which takes as long as all the rest
except ImportError:
    pass


def functions():
    for module, path in SOURCES.items():
        with open(path) as f:
            tree = ast.parse(f.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name not in AT_IMPORT:
                yield module, node.name, node.lineno


def plant(module, line, fault):
    """Runs a module anew, with a fault at the begin of the function that begins at the
    line; of one that catches what it does, at the begin of that."""
    with open(SOURCES[module]) as f:
        tree = ast.parse(f.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.lineno == line:
            body = node.body
            if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                body = node.body[1:]
            if isinstance(body[0], ast.Try):
                body = body[0].body
                at = 1 if isinstance(body[0], ast.Global) else 0
                body[at:at] = ast.parse(fault).body
            else:
                node.body[0:0] = [n for n in ast.parse(fault).body]
                glob = [n for n in node.body if isinstance(n, ast.Global)]
                node.body[:] = glob + [n for n in node.body if n not in glob]
    made = types.ModuleType(module)
    made.__file__, made.__package__ = SOURCES[module], module.rpartition(".")[0]
    made._met = met
    sys.modules[module] = made
    exec(compile(ast.fix_missing_locations(tree), SOURCES[module], "exec"), made.__dict__)
    if module == "mlflowfs_plugin":
        for scheme in ("models", "runs", "mlflow-artifacts", "s3"):
            registry._artifact_repository_registry.register(scheme, getattr(made, scheme.replace("-", "_")))


class Count(logging.Handler):
    said = []

    def emit(self, record):
        self.said.append(record.getMessage())


def work(seed, all):
    """What a user does: all, or what is soon done."""
    out = {}
    with tempfile.TemporaryDirectory() as d:
        path = download_artifacts(f"models:/{seed['prefix']}sk@champion/MLmodel")
        with open(path) as f:
            out["read"] = f.read()
        path = download_artifacts(f"runs:/{seed['run']}/doc", dst_path=d)
        with open(registry.get_artifact_repository(f"runs:/{seed['run']}").download_artifacts("doc/text.txt")) as f:
            out["of a repository"] = f.read()
        out["list"] = [[f.path, f.is_dir, f.file_size] for f in list_artifacts(f"runs:/{seed['run']}/odd")]
        out["copy"] = os.path.relpath(path, d), sorted(os.listdir(d)), sorted(os.listdir(path))
        if all:
            out["text"] = load_text(f"runs:/{seed['run']}/doc/text.txt")
            model = mlflow.sklearn.load_model(f"models:/{seed['prefix']}sk@champion")
            out["predicted"] = model.predict(pd.DataFrame({"x": [0.0, 3.0]})).tolist()
    return out


def case(name, function, seed, want, prepare, all=False):
    """One case in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        logging.getLogger("mlflow.mlflowfs").addHandler(Count())
        begin, got = time.monotonic(), {}
        try:
            prepare()
            got = work(seed, all)
        except BaseException as e:
            got = {"raised": f"{type(e).__name__}: {e}"}
        wrong = {k: v for k, v in got.items() if want and want.get(k) != json.loads(json.dumps(v))}
        out = {"case": name, "function": function, "met": bool(met), "wrong": wrong, "warned": Count.said, "seconds": time.monotonic() - begin}
        with os.fdopen(write, "w") as w:
            json.dump(out if want else {**out, "got": got}, w)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as r:
        said = r.read()
    os.waitpid(child, 0)
    out = json.loads(said) if said else {"case": name, "function": function, "wrong": "it ended", "warned": [], "seconds": 0, "met": True}
    got = out.pop("got", None)
    print(json.dumps(out), flush=True)
    return got


def main():
    with open(sys.argv[1]) as f:
        seed = json.load(f)
    want = case("off", "", seed, None, lambda: os.environ.update(MLFLOWFS_PLUGIN="off"), all=True)
    want = json.loads(json.dumps(want))
    case("right", "", seed, want, lambda: None, all=True)
    old = next(p for p in sys.argv[3:] if p.endswith("/old"))
    for i, (module, function, line) in enumerate(functions() if sys.argv[2] == "functions" else []):
        for k, (kind, raised) in enumerate(KINDS.items()):
            if (i + k) % 3 and kind not in ("RuntimeError", "OSError") and not os.environ.get("MLFLOWFS_SOAK"):
                continue  # a soak has all of them
            fault = f"_met.append(1)\n{'raise ' if '(' in raised and 'decode' not in raised else ''}{raised}"
            case(kind, f"{module}.{function}", seed, want, lambda: plant(module, line, fault), all=kind == "RuntimeError")
            if kind == "OSError":

                def both():
                    os.environ["MLFLOWFS_PROGRAM"] = old
                    plant(module, line, fault)

                case(kind + " and an old program", f"{module}.{function}", seed, want, both)
    if sys.argv[2] == "functions":
        return case("KeyboardInterrupt", "", seed, want, lambda: plant("mlflowfs._mlflow", next(n for _, f, n in functions() if f == "_attend"), "_met.append(1)\nraise KeyboardInterrupt()"))
    for program in sys.argv[3:]:
        case("program " + os.path.basename(program), "", seed, want, lambda: os.environ.update(MLFLOWFS_PROGRAM=program), all=True)


if __name__ == "__main__":
    main()
