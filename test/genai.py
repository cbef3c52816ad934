"""Makes prompts, traces and datasets with the installed MLflow's own functions, and holds
files that mlflowfs shows of them against what those functions give.

    genai.py prompts make STEM       makes prompts whose names begin with STEM
    genai.py prompts check DIR STEM  compares those below DIR/prompts
    genai.py inputs make NAME        makes an experiment NAME with a run that reads datasets
    genai.py inputs check DIR NAME   compares what its run.json says of them
    genai.py traces make NAME N      makes an experiment NAME with traces of all kinds, and N plain ones
    genai.py datasets make STEM      makes datasets whose names begin with STEM, two of one name
    genai.py datasets check DIR STEM compares those below DIR/datasets
    genai.py traces archive DIR NAME archives those of NAME below the directory DIR
    genai.py traces check DIR NAME [old]    compares those below DIR/experiments/NAME, with an old server

What differs is printed, one sentence a line.
"""

import json
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.update(MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_DISABLE_TELEMETRY="true", GIT_PYTHON_REFRESH="quiet")
import logging

import mlflow

logging.disable(logging.WARNING)
V3 = not mlflow.__version__.startswith("2.")
client = mlflow.MlflowClient()


def differ(what, got, want):
    if got != want:
        print(f"{what}: {got!r:.2000}, and not {want!r:.2000}")


def make_prompts(stem):
    """Texts, chats, with and without all that a prompt can have; aliases that moved."""
    register, alias = client.register_prompt, client.set_prompt_alias
    if not V3:
        for text in "Say {{ it }}\n", "Say it in {{language}}: é 😀":
            register(stem + ".old", text, commit_message="a message", version_metadata={"author": "ann"} if "é" in text else None)
        alias(stem + ".old", "prod", 1)
        alias(stem + ".old", "prod", 2)
        return
    register(stem + ".text", "Say {{ it }}\r\n")
    register(stem + ".text", "  Say it:\n\té 😀 <b>&amp;</b> \\u0041 %2F {{x}}" + "y" * 50_000, commit_message="two\nlines", tags={"a/b": "1", "_mlflow_x": "{}", "empty": ""})
    register(stem + ".text", "third", model_config={"model_name": "gpt", "temperature": 0.5, "stop_sequences": ["<", "\n"], "odd": {"n": [1, 2.5, None]}})
    chat = [{"role": "system", "content": "You are {{ style }}: é"}, {"role": "user", "content": '{{question}} "\\ </script>'}]
    register(stem + ".chat", chat, response_format={"type": "object", "properties": {"é": {"type": "number", "maximum": 12345678901234567890}}})
    register(stem + ".chat", chat[1:], commit_message="", tags={"who": "ann"}, model_config={"max_tokens": 5})
    for name, version in ("prod", 1), ("prod", 2), ("both", 2), ("first", 1):
        alias(stem + ".text", name, version)
    alias(stem + ".chat", "prod", 1)
    client.delete_prompt_alias(stem + ".text", "first")
    if not os.environ["MLFLOW_TRACKING_URI"].startswith("http"):
        return
    client.delete_prompt_version(stem + ".text", "3")


def check_prompts(at, stem):
    from mlflow.entities.model_registry import PromptVersion

    at = os.path.join(at, "prompts")
    names = sorted(p.name for p in client.search_prompts(max_results=1000) if p.name.startswith(stem))
    listed = sorted(n for n in os.listdir(at) if n.startswith(stem))
    aliases = set()
    for name in names:
        versions = {str(v.version) for v in client.search_prompt_versions(name)}
        differ(name, set(os.listdir(f"{at}/{name}")), versions | {"latest"})
        differ(name + "@latest", os.readlink(f"{at}/{name}/latest"), str(max(map(int, versions))))
        differ(name + "@latest", os.readlink(f"{at}/{name}@latest"), name + "/" + str(max(map(int, versions))))
        for version in sorted(versions):
            compare(f"{at}/{name}/{version}", client.get_prompt_version(name, version), PromptVersion)
            for a in client.get_prompt_version(name, version).aliases:
                aliases.add(f"{name}@{a}")
                differ(f"{name}@{a}", os.readlink(f"{at}/{name}@{a}"), f"{name}/{version}")
    differ("the names", listed, sorted(names + list(aliases)))
    if not names:
        print("no prompts")
    for missing in f"{names[0]}/99", f"{names[0]}@none", f"{stem}.none", f"{names[0]}/production":
        if os.path.lexists(f"{at}/{missing}"):
            print(missing, "is there")


def compare(path, want, PromptVersion):
    with open(path + "/prompt.json", encoding="utf-8") as f:
        fields = json.load(f)
    got = PromptVersion(**fields)
    got.aliases, want.aliases = sorted(got.aliases), sorted(want.aliases)
    differ(path, dict(got), dict(want))
    differ(path + "'s equality", got == want, True)
    text, name = want.template, "template.txt"
    if not want.is_text_prompt:
        name = "messages.json"
    with open(f"{path}/{name}", encoding="utf-8", newline="") as f:
        body = f.read()
    differ(path + "/" + name, body if want.is_text_prompt else json.loads(body), text)
    differ(path, sorted(os.listdir(path)), sorted([name, "prompt.json"]))


def mend_opentelemetry():
    """MLflow 2.22 does not call the constructor of a class of OpenTelemetry's, whose newer
    releases then export nothing, and say nothing."""
    import types

    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    ignored = lambda *_: None
    SimpleSpanProcessor._shutdown = False
    SimpleSpanProcessor._metrics = types.SimpleNamespace(drop_items=ignored, finish_items=ignored)


def make_traces(name, n):
    if not V3:
        mend_opentelemetry()
    experiment = client.get_experiment_by_name(name)
    mlflow.set_experiment(experiment_id=experiment.experiment_id if experiment else client.create_experiment(name))

    class Refused(Exception):
        pass

    with mlflow.start_span(name="outer é", span_type="CHAIN", attributes={"a.b": 1, "list": [1, 2.5, None, "x"], "deep": {"é": {"n": 10**18}}}) as outer:
        outer.set_inputs({"question": "<b>&amp;</b>\n\u2028 😀", "n": 12345678901234567, "none": None})
        for i in range(3):
            with mlflow.start_span(name=f"inner {i}", span_type="LLM") as inner:
                inner.set_inputs(["a", i])
                inner.set_outputs({"text": "line\r\nline " + "y" * (200_000 if i == 2 else 10)})
                inner.add_event(mlflow.entities.SpanEvent("happened", attributes={"k": "v", "n": i}))
                with mlflow.start_span(name="innermost"):
                    pass
        outer.set_outputs("done")
    try:
        with mlflow.start_span(name="failing"):
            raise Refused("no: 'quoted' \"twice\"")
    except Refused:
        pass
    for i in range(int(n)):
        with mlflow.start_span(name="plain") as span:
            span.set_inputs(i)
    mlflow.flush_trace_async_logging()
    if V3:
        odd_trace()
        more_traces(outer.trace_id)


def odd_trace():
    """Values of all kinds, among them some that are no JSON, and many spans."""
    with mlflow.start_span(name="odd \x01\x7f\u2028\"\\\b\f\t") as span:
        span.set_attributes({"": -0.0, "floats": [1e16, 1e-5, 123456789.125, 5e-324, float("inf"), float("nan")], "ints": [-(2**63), 2**63 - 1], "none": None, "empty": [[], {}, ""], "odd": "\x00\x1f\x7f\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")})
        span.add_event(mlflow.entities.SpanEvent("odd", attributes={"f": 0.1, "b": True, "l": ["x", "y"], "n": -1}))
        span.add_link(mlflow.entities.Link("tr-" + "ab" * 16, "0123456789abcdef", {"k": 1.5}))
        span.add_link(mlflow.entities.Link("tr-" + "cd" * 16, "0000000000000001"))
        for i in range(60):  # more than a page of a database
            with mlflow.start_span(name=f"of many {i}") as child:
                child.set_status("OK")
    mlflow.flush_trace_async_logging()


def more_traces(trace):
    """Tags, metadata and assessments of all kinds, and a trace whose spans lie at artifacts."""
    import copy

    from mlflow.entities import AssessmentError, AssessmentSource, Feedback

    client.set_trace_tag(trace, "own tag", "x" * 300)
    human, judge = AssessmentSource("HUMAN", "ann@example.com"), AssessmentSource("LLM_JUDGE", "gpt")
    first = mlflow.log_feedback(trace_id=trace, name="good", value=True, source=human, rationale="because\nof é", metadata={"a": "1"})
    mlflow.log_feedback(trace_id=trace, name="score", value=0.25, source=judge)
    mlflow.log_feedback(trace_id=trace, name="parts", value={"a": 1, "b": [True, "x"]}, source=judge)
    mlflow.log_feedback(trace_id=trace, name="failed", error=AssessmentError("E1", "the judge failed", "at line 1"), source=judge)
    mlflow.log_expectation(trace_id=trace, name="facts", value=["a", {"b": 2}], source=human)
    mlflow.log_expectation(trace_id=trace, name="answer", value="42", source=human)
    mlflow.override_feedback(trace_id=trace, assessment_id=first.assessment_id, value=False, source=human)
    with mlflow.start_span(name="used") as span:
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15})
        mlflow.update_current_trace(session_id="s1", metadata={"mlflow.trace.user": "ann", "k": "v"}, client_request_id="req-1", tags={"t": "1"})
    mlflow.flush_trace_async_logging()
    tracing = client._tracing_client
    kept = tracing.get_trace(trace)
    info, data = copy.deepcopy(kept.info), kept.data
    info.trace_id, info.assessments = "tr-" + "a" * 32, []
    info.tags = {"mlflow.traceName": "at artifacts"}
    for key in list(info.trace_metadata):
        if "size" in key.lower():
            del info.trace_metadata[key]
    made = tracing.start_trace(info)
    tracing._upload_trace_data(made, data)


def archive_traces(at, name):
    store = client._tracing_client.store
    experiment = client.get_experiment_by_name(name).experiment_id
    client.set_experiment_tag(experiment, "mlflow.trace.archiveNow", "{}")
    time.sleep(0.01)
    found = len(client._tracing_client._search_traces(locations=[experiment], max_results=100)[0])
    n = store.archive_traces(resolved_trace_archival_location="file://" + at, broader_retention="3650d")
    differ("the number of archived traces", n, found - 1)  # the spans of one are in traces.json


def check_traces(at, name, old=""):
    from mlflow.entities import Trace

    tracing = client._tracing_client
    experiment = client.get_experiment_by_name(name).experiment_id
    infos, token = [], None
    while True:
        page = tracing._search_traces(locations=[experiment], max_results=100, page_token=token, order_by=["timestamp_ms DESC"])
        infos, token = infos + page[0], page[1]
        if not token:
            break
    at = os.path.join(at, "experiments", name)
    listed = os.listdir(at + "/traces")
    differ("the listing", sorted(listed), sorted(i.trace_id + ".json" for i in infos))
    with open(at + "/traces.jsonl", encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    differ("the lines", sorted(t["info"]["trace_id"] for t in lines), sorted(i.trace_id for i in infos))
    times = [t["info"]["request_time"] for t in lines]
    differ("the lines' order", times, sorted(times, reverse=True))
    lines = {t["info"]["trace_id"]: t for t in lines}
    for i in infos:
        with open(f"{at}/traces/{i.trace_id}.json", encoding="utf-8") as f:
            text = f.read()
        # MLflow 3's get_trace asks MLflow 2's server for what that has not.
        want = Trace(i, tracing._download_trace_data(i)) if old else tracing.get_trace(i.trace_id)
        got = Trace.from_json(text)
        for part in "info", "data":
            g, w = getattr(got, part).to_dict(), getattr(Trace.from_json(want.to_json()), part).to_dict()
            if part == "info":
                g["assessments"], w["assessments"] = (sorted(d.get("assessments", []), key=lambda a: a["assessment_id"]) for d in (g, w))
            for key in sorted(g.keys() | w.keys()):
                differ(f"{i.trace_id} {part} {key}", g.get(key), w.get(key))
        differ("the events", [[e.name for e in s.events] for s in got.data.spans], [[e.name for e in s.events] for s in want.data.spans])
        differ("the line", lines.get(i.trace_id), json.loads(text))
    if not infos:
        print("no traces")
    for missing in "tr-" + "0" * 32, "tr-" + "a" * 31, infos[0].trace_id + ".json", ".git", "README":
        if os.path.lexists(f"{at}/traces/{missing}.json"):
            print(missing, "is there")


def make_datasets(stem):
    from mlflow.genai.datasets import create_dataset

    experiment = client.create_experiment("other of " + stem)
    for i in range(2):
        create_dataset(name=stem + "/twice", experiment_id=[experiment])
    create_dataset(name=stem + " empty", experiment_id=[experiment], tags={"a": "b"})
    many = create_dataset(name=stem + " é", experiment_id=["0", experiment])
    many.merge_records([{"inputs": {"q": f"{i} é \n\u2028 [{{"}, "expectations": {"n": i}} for i in range(230)])
    many.merge_records([
        {"inputs": {"deep": {"list": [1, 2.5, None, "x]}\\\""]}}, "outputs": {"a": 1}, "expectations": {"text": "y"}, "tags": {"k": "v"}},
        {"inputs": {"only": "outputs"}, "outputs": "a text"},
        {"inputs": {"only": "list"}, "outputs": [1, {"b": 2}]},
        {"inputs": {"of": "a human"}, "source": {"source_type": "HUMAN", "source_data": {"user": "ann"}}},
        {"inputs": {"of": "a document"}, "source": {"source_type": "DOCUMENT", "source_data": {"doc_uri": "s3://x", "content": "z"}}},
    ])
    with mlflow.start_span(name="ask") as span:
        span.set_inputs({"question": "why?"})
        span.set_outputs({"answer": "because"})
    mlflow.flush_trace_async_logging()
    many.merge_records([client._tracing_client.get_trace(span.trace_id)])


def check_datasets(at, stem):
    from mlflow.entities.dataset_record import DatasetRecord

    at = os.path.join(at, "datasets")
    found = [d for d in client.search_datasets(max_results=1000) if d.name.startswith(stem)]
    count = {d.name: sum(d.name == o.name for o in found) for d in found}
    names = {d.name.replace("/", "%2F") + ("-" + d.dataset_id[:10] if count[d.name] > 1 else "") + ".jsonl": d for d in found}
    differ("the names", sorted(n for n in os.listdir(at) if n.startswith(stem)), sorted(names))
    for name, dataset in names.items():
        with open(f"{at}/{name}", encoding="utf-8", newline="\n") as f:
            got = [DatasetRecord.from_dict(json.loads(line)) for line in f]
        want = dataset.records
        differ(name + "'s length", len(got), len(want))
        for g, w in zip(got, want):
            differ(f"{name} {w.dataset_record_id}", g.__dict__, w.__dict__)
            differ(f"{name} {w.dataset_record_id}'s equality", g == w, True)
    if max(len(d.records) for d in found) < 236 or len(found) != 4:
        print("too few", [(d.name, len(d.records)) for d in found])
    if os.path.lexists(f"{at}/{stem} none.jsonl") or os.path.lexists(f"{at}/{stem}%2Ftwice.jsonl"):
        print("there is what is not there")


def make_inputs(name):
    from mlflow.entities import Dataset, DatasetInput, InputTag

    run = client.create_run(client.create_experiment(name), run_name="reads").info.run_id
    for i in range(2):
        made = Dataset(f"data {i} é", "digest", "local", '{"uri": "x"}', schema='{"s": 1}' if i else None, profile='{"n": 1}')
        client.log_inputs(run, datasets=[DatasetInput(made, [InputTag("mlflow.data.context", "train"), InputTag("k", "v")])])
    client.set_terminated(run)


def check_inputs(at, name):
    run = client.search_runs([client.get_experiment_by_name(name).experiment_id])[0].info.run_id
    with open(f"{at}/experiments/{name}/reads/run.json", encoding="utf-8") as f:
        got = json.load(f)["inputs"]["dataset_inputs"]
    want = []
    for d in client.get_run(run).inputs.dataset_inputs:
        made = {k: v for k, v in dict(d.dataset).items() if v}
        want.append({"tags": sorted((t.key, t.value) for t in d.tags), "dataset": made})
    got = [{"tags": sorted((t["key"], t["value"]) for t in d["tags"]), "dataset": d["dataset"]} for d in got]
    by_name = lambda d: d["dataset"]["name"]
    differ("the inputs", sorted(got, key=by_name), sorted(want, key=by_name))
    differ("their number", len(got), 2)


globals()[f"{sys.argv[2]}_{sys.argv[1]}"](*sys.argv[3:])
