"""Logs a run with files, and models of several flavours, for the tests of the plug-in.

Logs to MLFLOW_TRACKING_URI, registers in MLFLOW_REGISTRY_URI. usage: plugin_seed.py
all|few PREFIX [ARTIFACT_LOCATION]. few has not the flavours that take long. The names of
registered models begin with PREFIX. Prints
{"prefix", "run", "second", "models": ids of logged models}.
"""

import json
import logging
import os
import sys
import tempfile
import types
import warnings

warnings.filterwarnings("ignore")
os.environ["HF_HUB_OFFLINE"] = "1"  # of transformers
logging.disable(logging.WARNING)

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

ALL, PREFIX = sys.argv[1] == "all", sys.argv[2]
V3 = not mlflow.__version__.startswith("2.")
FILES = {
    "top.txt": b"top\n", "doc/text.txt": "zwölf\n".encode(), "doc/latin.txt": b"\xe4\n", "doc/bad.json": b"{", "doc/empty": b"",
    "deep/1/2/leaf.txt": b"leaf", "odd/sp ace.txt": b"1", "odd/é.txt": b"2", "odd/plus+.txt": b"3", "odd/100%.txt": b"4",
}
SCRIPT = """
import mlflow
class Add(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input + 1
mlflow.models.set_model(Add())
"""


class WithData(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        import plugin_helper

        with open(os.path.join(context.artifacts["data"], "weights.txt")) as f:
            self.weight = plugin_helper.number(f.read())

    def predict(self, context, model_input, params=None):
        return model_input * self.weight


def log(flavor, name, **kw):
    kw.update({"name": name} if V3 else {"artifact_path": name})
    return flavor.log_model(pip_requirements=["numpy"], **kw)


def log_models(d):
    X, y = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]}), [0, 0, 1, 1]
    os.makedirs(os.path.join(d, "data"))
    for name, text in {"script.py": SCRIPT, "data/weights.txt": "7", "plugin_helper.py": "number = int\n"}.items():
        with open(os.path.join(d, name), "w") as f:
            f.write(text)
    sys.path.append(d)
    log(mlflow.pyfunc, "data", python_model=WithData(), artifacts={"data": os.path.join(d, "data")}, code_paths=[os.path.join(d, "plugin_helper.py")],
        signature=infer_signature(X, X), input_example=X, registered_model_name=PREFIX + "data")
    log(mlflow.pyfunc, "script", python_model=os.path.join(d, "script.py"), registered_model_name=PREFIX + "script")
    sk = LogisticRegression().fit(X, y)
    info = log(mlflow.sklearn, "sk", sk_model=sk, signature=infer_signature(X, np.array(y)), input_example=X, registered_model_name=PREFIX + "sk")
    mlflow.register_model(info.model_uri, PREFIX + "sk")
    if not ALL:
        return
    log_torch()
    log_transformers(d)
    if V3:  # which has onnx beside it
        import onnx.helper as h

        add = h.make_graph([h.make_node("Add", ["x", "x"], ["y"])], "g", [h.make_tensor_value_info("x", 1, [None, 1])], [h.make_tensor_value_info("y", 1, [None, 1])])
        log(mlflow.onnx, "net", onnx_model=h.make_model(add, opset_imports=[h.make_opsetid("", 13)], ir_version=8), registered_model_name=PREFIX + "net")


def log_torch():
    """With Debian's torch, which is older than MLflow 3 wants when it logs."""
    sys.path.append("/usr/lib/python3/dist-packages")
    import mlflow.pytorch
    import torch

    kw = {}
    if V3:
        export = sys.modules["torch.export"] = types.ModuleType("torch.export")
        export.Dim = None
        kw["serialization_format"] = "pickle"
    log(mlflow.pytorch, "torch", pytorch_model=torch.nn.Linear(2, 1), registered_model_name=PREFIX + "torch", **kw)


def log_transformers(d):
    """With the release that goes with Debian's torch."""
    sys.path.append(os.path.join(sys.prefix, "..", "transformers"))
    import mlflow.transformers
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, pipeline

    with open(os.path.join(d, "vocab.txt"), "w") as f:
        f.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
    net = BertForSequenceClassification(BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    p = pipeline("text-classification", model=net, tokenizer=BertTokenizerFast(vocab_file=os.path.join(d, "vocab.txt")))
    log(mlflow.transformers, "bert", transformers_model=p, registered_model_name=PREFIX + "bert")


def main():
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("other " + PREFIX, artifact_location=(sys.argv + [None])[3]))
    with tempfile.TemporaryDirectory() as d, mlflow.start_run() as run:
        for name, content in FILES.items():
            os.makedirs(os.path.dirname(os.path.join(d, name)), exist_ok=True)
            with open(os.path.join(d, name), "wb") as f:
                f.write(content)
        mlflow.log_artifacts(d)
        mlflow.log_dict({"a": [1, 2.5], "b": None}, "doc/dict.json")
        mlflow.log_image(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "doc/image.png")
        mlflow.log_table({"x": [1, 2]}, "tables/t.json")
    with tempfile.TemporaryDirectory() as d, mlflow.start_run() as second:
        log_models(d)
        mlflow.log_text("the run's", "sk/extra/from-the-run.txt")
        mlflow.log_text("the run's, too", "data/code/from-the-run.txt")
    client = MlflowClient()
    client.set_registered_model_alias(PREFIX + "sk", "champion", "1")
    client.transition_model_version_stage(PREFIX + "sk", "2", "Staging")
    ids = []
    if V3:
        ids = [m.model_id for m in mlflow.search_logged_models(experiment_ids=[second.info.experiment_id], output_format="list") if m.name == "sk"]
    print(json.dumps({"prefix": PREFIX, "run": run.info.run_id, "second": second.info.run_id, "models": ids}))


if __name__ == "__main__":
    main()
