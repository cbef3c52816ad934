"""Does with artifacts what MLflow's users do, and prints what came of each call.

usage: plugin_calls.py reads|some|writes|load SEED.json

Prints {"calls": {name: what it gave, or its error}, "temporary": {name: the path, where
that is below the temporary directory}}. load gives no more than one model's
prediction, some a few of what reads does, and `writes` does what changes artifacts, or what was downloaded.
"""

import hashlib
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor

warnings.filterwarnings("ignore")
os.environ["HF_HUB_OFFLINE"] = "1"  # of transformers

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts, load_dict, load_image, load_text
from mlflow.models import Model, get_model_info, infer_signature

logging.getLogger("mlflow").setLevel(logging.CRITICAL)
logging.getLogger("mlflow.mlflowfs").setLevel(logging.WARNING)

TMP = tempfile.gettempdir()
FRAME = pd.DataFrame({"x": [0.0, 3.0]})
calls, temporary = {}, {}
own_names = {}  # what stands in the place of a seed's own names


def digest(path):
    with open(path, "rb") as f:
        b = f.read()
    return [len(b), hashlib.sha256(b).hexdigest()[:16]]


def tree(path):
    """Every name below path: a file's size and digest, or "" for a directory."""
    if not os.path.isdir(path):
        return digest(path)
    out = {}
    for dir, dirs, files in os.walk(path):
        for d in dirs:
            out[os.path.relpath(os.path.join(dir, d), path)] = ""
        for f in files:
            if not f.endswith(".pyc"):
                out[os.path.relpath(os.path.join(dir, f), path)] = digest(os.path.join(dir, f))
    return {k: v for k, v in out.items() if not k.endswith("__pycache__")}


def call(name, f, *args, **kwargs):
    try:
        got = f(*args, **kwargs)
    except Exception as e:
        got = {"error": f"{type(e).__module__}.{type(e).__name__}: {e}"}
    said = json.dumps(got, default=str, sort_keys=True)
    for what, own in own_names.items():
        said = said.replace(own, what)
    # Of a path in a message, the last name alone is the same.
    calls[name] = re.sub(r"(?<![:/\w])(/[^/ '\"]+)+/", "", said)


def downloaded(name, f, named=True, **kwargs):
    """A download to no named directory; named: it has a path in the artifacts."""

    def get():
        path = f(**kwargs)
        if path.startswith(TMP):
            temporary[name] = path
        assert os.path.isabs(path), path
        return {"base": os.path.basename(path) if named else "", "ends": path.endswith("/"), "tree": tree(path)}

    call(name, get)


def copied(name, f, **kwargs):
    """A download to a directory, which has something in it."""

    def get():
        with tempfile.TemporaryDirectory(dir=os.getcwd()) as dst:
            os.makedirs(os.path.join(dst, "doc"))
            for n in "doc/text.txt", "doc/mine":
                with open(os.path.join(dst, n), "w") as mine:
                    mine.write("something longer than what comes")
            path = f(dst_path=dst, **kwargs)
            files = {k: v for k, v in tree(dst).items() if v}  # MLflow 3 leaves directories of models that it did not find
            return {"returned": os.path.relpath(path, dst), "ends": path.endswith("/"), "tree": files}

    call(name, get)


def uris(seed):
    """All forms of URI, of what is there and of what is not."""
    run, second = "runs:/" + seed["run"], "runs:/" + seed["second"]
    out = [run, run + "/", run + "/doc", run + "/doc/", run + "/doc/text.txt", run + "/deep/1", run + "/deep/1/2/leaf.txt", run + "/none", run + "/doc/none", run + "/doc/empty"]
    out += [run + "/odd/" + n for n in ("sp ace.txt", "é.txt", "plus+.txt", "100%.txt")]
    out += [second + "/" + p for p in ("data", "data/MLmodel", "sk", "sk/extra", "sk/extra/from-the-run.txt", "data/code", "script", "data/artifacts/data/weights.txt")]
    out += ["models:/" + seed["prefix"] + m for m in ("sk/1", "sk/2", "sk/latest", "sk@champion", "sk/Staging", "sk/staging", "sk/1/MLmodel", "sk@champion/MLmodel", "data/1/code", "data/1/artifacts/data/weights.txt",
                                     "sk/9", "sk@none", "none/1", "sk/1/none", "sk/none", "sk", "sk/1/", "script/1")]
    for m in seed["models"]:
        out += [f"models:/{m}", f"models:/{m}/MLmodel"]
    client = MlflowClient()
    info, version = client.get_run(seed["run"]).info, client.get_model_version_download_uri(seed["prefix"] + "sk", "1")
    out += [info.artifact_uri, info.artifact_uri + "/", info.artifact_uri + "/doc", info.artifact_uri + "/doc/text.txt", info.artifact_uri + "/none", version, version + "/MLmodel"]
    return out + ["runs:/" + "0" * 32 + "/x", "runs:/", "models:/", "nope:/x"]


def read(seed):
    all_of_uri(f"runs:/{seed['run']}/doc")  # boto3's first client must not be made by several threads at once
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(all_of_uri, uris(seed)))
        run, second = seed["run"], seed["second"]
        paths = [(run, p) for p in (None, "", "doc", "doc/text.txt", "deep/1/2", "none", "doc/none")]
        list(pool.map(all_of_run, paths + [(second, None), (second, "sk"), (second, "sk/MLmodel"), (second, "data/code"), ("0" * 32, None)]))
    loaders(run)
    models(seed)


def all_of_uri(uri):
    named = not re.fullmatch(r"models:/[^/]*(/[^/]*)?/?|.*/", uri)
    downloaded(f"download {uri}", download_artifacts, artifact_uri=uri, named=named)
    copied(f"copy {uri}", download_artifacts, artifact_uri=uri)
    call(f"list {uri}", lambda: [[f.path, f.is_dir, f.file_size] for f in list_artifacts(artifact_uri=uri)])


def all_of_run(of):
    id, path = of
    client = MlflowClient()
    downloaded(f"download run_id {id} {path}", download_artifacts, named=bool(path), run_id=id, artifact_path=path)
    copied(f"copy run_id {id} {path}", download_artifacts, run_id=id, artifact_path=path)
    call(f"list run_id {id} {path}", lambda: [[f.path, f.is_dir, f.file_size] for f in list_artifacts(run_id=id, artifact_path=path)])
    call(f"client's list {id} {path}", lambda: [[f.path, f.is_dir, f.file_size] for f in client.list_artifacts(id, path)])
    downloaded(f"client's download {id} {path}", client.download_artifacts, named=bool(path), run_id=id, path=path or "")
    copied(f"client's copy {id} {path}", client.download_artifacts, run_id=id, path=path or "")


def loaders(run):
    client = MlflowClient()
    doc = f"runs:/{run}/doc"
    for name in "text.txt", "latin.txt", "none", "dict.json", "bad.json", "image.png":
        call("text " + name, load_text, f"{doc}/{name}")
        call("dict " + name, load_dict, f"{doc}/{name}")
        call("image " + name, lambda: hashlib.sha256(load_image(f"{doc}/{name}").tobytes()).hexdigest())
    call("text of a directory", load_text, doc)
    call("table", lambda: mlflow.load_table("tables/t.json", [run]).to_dict())
    call("to a new directory", lambda: os.path.relpath(download_artifacts(artifact_uri=f"{doc}/text.txt", dst_path="new/one")))
    call("to a file", lambda: client.download_artifacts(run, "doc", "/proc/self/status"))
    call("to nowhere", lambda: client.download_artifacts(run, "doc", os.path.join(os.getcwd(), "none")))


def models(seed):
    flavors = {"data": ["pyfunc"], "script": ["pyfunc"], "sk": ["pyfunc", "sklearn"], "torch": ["pytorch"], "bert": ["transformers"]}
    if seed["models"]:
        flavors["net"] = ["pyfunc", "onnx"]
    for name, of in flavors.items():
        for uri in (f"models:/{seed['prefix']}{name}/1", f"runs:/{seed['second']}/{name}"):
            call(f"info {uri}", lambda: {k: v for k, v in vars(get_model_info(uri)).items() if isinstance(v, (str, int))})
            call(f"Model {uri}", lambda: Model.load(uri).to_yaml())
            call(f"dependencies {uri}", lambda: tree(mlflow.pyfunc.get_model_dependencies(uri)))
            call(f"example {uri}", lambda: Model.load(uri).load_input_example(uri))
            for flavor in of:
                call(f"{flavor} {uri}", lambda: predict(flavor, uri))
    call("sklearn to a directory", lambda: dst_of(f"models:/{seed['prefix']}sk/1"))
    call("no such flavor", mlflow.sklearn.load_model, f"models:/{seed['prefix']}script/1")
    call("no such model", mlflow.pyfunc.load_model, f"models:/{seed['prefix']}sk/9")
    call("no model", mlflow.pyfunc.load_model, f"runs:/{seed['run']}/doc")


def dst_of(uri):
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as d:
        mlflow.sklearn.load_model(uri, dst_path=d)
        return tree(d)


def predict(flavor, uri):
    if flavor == "pytorch":
        sys.path.append("/usr/lib/python3/dist-packages")  # Debian's torch
        return mlflow.pytorch.load_model(uri).weight.tolist()
    if flavor == "transformers":
        sys.path.extend(["/usr/lib/python3/dist-packages", os.path.join(sys.prefix, "..", "transformers")])
        p = mlflow.transformers.load_model(uri)
        return [[float(x.sum()) for x in p.model.parameters()], p.tokenizer("a b")["input_ids"]]
    if flavor == "onnx":
        import onnx

        return hashlib.sha256(mlflow.onnx.load_model(uri).SerializeToString()).hexdigest()
    got = getattr(mlflow, flavor).load_model(uri).predict(FRAME.astype("float32") if "net" in uri else FRAME)
    return got.to_dict() if hasattr(got, "to_dict") else {k: v.tolist() for k, v in got.items()} if isinstance(got, dict) else got.tolist()


def write(seed):
    """What writes to a run or to what was downloaded, and reads it back."""
    from mlflow.models import set_signature
    from mlflow.models.model import update_model_requirements

    own_names.update({"PREFIX": seed["prefix"], "RUN": seed["run"], "SECOND": seed["second"]})
    uri = f"models:/{seed['models'][0]}" if seed["models"] else f"runs:/{seed['second']}/sk"
    call("requirements", update_model_requirements, uri, "add", ["requests==2.0"])
    call("requirements are", lambda: tree(mlflow.pyfunc.get_model_dependencies(uri)))
    call("signature", set_signature, uri, infer_signature(FRAME, [1.5]))
    call("signature is", lambda: str(get_model_info(uri).signature))
    call("log_table", lambda: MlflowClient().log_table(seed["run"], {"x": [3]}, "tables/t.json"))
    call("table is", lambda: mlflow.load_table("tables/t.json", [seed["run"]]).to_dict())
    if seed["models"]:
        from mlflow.utils.env_pack import _get_source_artifacts

        def pack():
            with _get_source_artifacts(f"models:/{seed['prefix']}sk/1") as d:
                names = sorted(os.listdir(d))
            return names, os.path.exists(d)

        call("pack", pack)
    fresh(seed)


def fresh(seed):
    """What is logged, or moved, and read at once."""
    client, name = MlflowClient(), seed["prefix"] + "sk"
    for n in range(3):
        version = str(n % 2 + 1)
        call(f"alias to {version}, {n}", client.set_registered_model_alias, name, "mover", version)
        call(f"alias has {n}", lambda: meta(download_artifacts(f"models:/{name}@mover")))
        call(f"log {n}", lambda: logged(client, seed["run"], "fresh/f.txt", str(n) * (n + 1)))
        call(f"logged is {n}", lambda: load_text(f"runs:/{seed['run']}/fresh/f.txt"))
        call(f"directory is {n}", lambda: tree(download_artifacts(f"runs:/{seed['run']}/fresh")))
        call(f"log another {n}", lambda: logged(client, seed["run"], f"fresh/{n}.txt", "x"))
        call(f"list is {n}", lambda: [[f.path, f.is_dir, f.file_size] for f in list_artifacts(f"runs:/{seed['run']}/fresh")])
        call(f"directory has {n}", lambda: tree(download_artifacts(f"runs:/{seed['run']}/fresh")))
        call(f"all has {n}", lambda: tree(download_artifacts(run_id=seed["run"])))


def meta(path):
    with open(os.path.join(path, "registered_model_meta")) as f:
        return f.read()


def logged(client, run, name, text):
    client.log_text(run, text, name)
    return load_text(f"runs:/{run}/{name}")


def some(seed):
    """A few of each kind."""
    run = f"runs:/{seed['run']}"
    downloaded("download", download_artifacts, artifact_uri=run + "/doc")
    copied("copy", download_artifacts, artifact_uri=run + "/odd")
    call("list", lambda: [[f.path, f.is_dir, f.file_size] for f in list_artifacts(run_id=seed["run"])])
    call("dict", load_dict, run + "/doc/dict.json")
    call("none", load_text, run + "/none")
    load(seed)
    call("logged model", lambda: predict("sklearn", f"models:/{seed['models'][0]}"))


def load(seed):
    call("sklearn", lambda: predict("sklearn", f"models:/{seed['prefix']}sk@champion"))


if __name__ == "__main__":
    with open(sys.argv[2]) as f:
        seed = json.load(f)
    mlflow.set_experiment("other " + seed["prefix"])  # of which load_table is
    {"reads": read, "some": some, "writes": write, "load": load}[sys.argv[1]](seed)
    print(json.dumps({"calls": calls, "temporary": temporary}))
