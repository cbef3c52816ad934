"""Makes stores by a seed with the installed MLflow, and prints what its own client reads
of them: a JSON object of store to content. Without --server they are local ones.

usage: stores.py DIR SEED [STORE...]    which reads the stores STORE, too
       stores.py DIR SEED --server URI  in databases of the server at URI, which ends in a /
"""

import json
import os
import random
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")
os.environ.update(MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_DISABLE_TELEMETRY="true", GIT_PYTHON_REFRESH="quiet")
import logging

import mlflow
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, ViewType

logging.disable(logging.WARNING)
V3 = not mlflow.__version__.startswith("2.")
WORDS = ["a", "lr", "x/y", "ünï", "sp ace", "no", "1e3", "it's", "q\"", "100%"]


def write(uri, rng):
    """A few experiments with runs of all kinds, and a registry."""
    c = MlflowClient(uri, uri)
    experiments = [c.create_experiment(f"{i} {rng.choice(WORDS)}") for i in range(3)] + ["0"]
    runs = []
    for e in experiments:
        for i in range(rng.randint(1, 3)):
            id = c.create_run(e, run_name=rng.choice(WORDS) + str(i)).info.run_id
            runs.append((e, id))
            for w in rng.sample(WORDS, 3):
                w = w.replace("'", "").replace('"', "").replace("%", "")
                c.log_param(id, w, rng.choice(WORDS))
                c.set_tag(id, w, rng.choice(["", "two\nlines"] + WORDS))
                for step in rng.sample(range(9), 3):
                    c.log_metric(id, w, rng.choice([float("nan"), float("inf"), 0.1, -7, 1e300]), 1700000000000 + rng.randint(0, 3), step)
            c.log_inputs(id, datasets=[DatasetInput(Dataset("d" + str(i), "digest", "local", '{"uri": "x"}', profile='{"n": 1}'), [InputTag("mlflow.data.context", "train")])])
            c.log_text(id, "text of " + id, "dir/a.txt")
            if rng.random() < 0.8:
                c.set_terminated(id, rng.choice(["FINISHED", "FAILED", "KILLED"]))
    c.delete_run(runs[0][1])
    if V3:
        for e, id in runs[1:3]:
            m = c.create_logged_model(e, name="model", source_run_id=id)
            c.finalize_logged_model(m.model_id, "READY")
            c.log_outputs(id, [mlflow.entities.LoggedModelOutput(m.model_id, 3)])
        c.log_inputs(runs[3][1], models=[mlflow.entities.LoggedModelInput(m.model_id)])
    for name in ["m", "sp ace 'q"]:
        c.create_registered_model(name)
        for _, id in runs[:3]:
            c.create_model_version(name, c.get_run(id).info.artifact_uri + "/dir", id)
        c.set_registered_model_alias(name, "best", "2")
        c.transition_model_version_stage(name, "1", "Production")
        c.delete_model_version(name, "3")
    if V3:
        c.register_prompt("prompt", "say {{it}}")
    c.delete_experiment(experiments[1])
    return runs


def read(uri):
    c = MlflowClient(uri, uri)
    out = {"experiments": {}, "runs": {}, "order": {}, "models": {}, "logged": {}}
    ids = []
    for e in c.search_experiments(view_type=ViewType.ALL):
        ids.append(e.experiment_id)
        if e.lifecycle_stage == "active":
            out["experiments"][e.experiment_id] = e.name
            out["order"][e.experiment_id] = [r.info.run_id for r in c.search_runs([e.experiment_id])]
    for found in c.search_runs(ids, run_view_type=ViewType.ALL, max_results=1000):
        r = c.get_run(found.info.run_id)
        i = r.info
        outputs = r.outputs.model_outputs if V3 and r.outputs else []
        models = r.inputs.model_inputs if V3 and r.inputs else []
        metrics = {m.key: m for m in r._data._metric_objs}
        out["runs"][i.run_id] = {
            "name": i.run_name, "experiment": i.experiment_id, "status": i.status, "stage": i.lifecycle_stage, "user": i.user_id or "",
            "start": i.start_time or 0, "end": i.end_time or 0, "uri": i.artifact_uri,
            "params": r.data.params, "tags": {k: v or "" for k, v in r.data.tags.items()},
            "metrics": {k: [number(m.value), m.timestamp, m.step] for k, m in metrics.items()},
            "points": {k: len(c.get_metric_history(i.run_id, k)) for k in metrics},
            "inputs": sorted([d.dataset.name, d.dataset.digest, d.dataset.source_type, d.dataset.source, d.dataset.schema or "", d.dataset.profile or "", {t.key: t.value for t in d.tags}] for d in (r.inputs.dataset_inputs if r.inputs else [])),
            "read": sorted(m.model_id for m in models), "made": sorted([o.model_id, o.step] for o in outputs),
        }
    for m in c.search_registered_models():
        m = c.get_registered_model(m.name)
        versions = {}
        for v in c.search_model_versions("name=" + json.dumps(m.name)):
            v = c.get_model_version(v.name, v.version)
            versions[str(v.version)] = [v.current_stage, v.source, v.status, c.get_model_version_download_uri(v.name, v.version)]
        out["models"][m.name] = {
            "aliases": {k: str(v) for k, v in m.aliases.items()},
            "latest": {v.current_stage: str(v.version) for v in m.latest_versions}, "versions": versions,
        }
    if V3:
        for m in c.search_logged_models(ids):
            out["logged"][m.model_id] = [m.name, m.experiment_id, m.source_run_id, m.artifact_location, str(m.status)]
    return out


def number(v):
    return "NaN" if v != v else "Infinity" if v == float("inf") else "-Infinity" if v == -float("inf") else repr(float(v))


def bend_files(store, runs, rng):
    """What owners of a FileStore do to it: link an experiment and a run elsewhere."""
    away = store + "-away"
    os.mkdir(away)
    e, _ = runs[0]
    shutil.move(f"{store}/{e}", f"{away}/{e}")
    os.symlink(rng.choice([f"../{os.path.basename(away)}/{e}", f"{away}/{e}"]), f"{store}/{e}")
    e, id = runs[-1]
    shutil.move(f"{store}/{e}/{id}", f"{away}/{id}")
    os.symlink(f"{away}/{id}", f"{store}/{e}/{id}")


def bend_tables(uri, runs):
    """What other programs and older MLflows have left in tables."""
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as db:
        do = lambda stmt, run: db.execute(sqlalchemy.text(stmt), {"run": run})
        do("UPDATE runs SET name = NULL WHERE run_uuid = :run", runs[-1][1])
        do("UPDATE runs SET name = '' WHERE run_uuid = :run", runs[-2][1])
        do("INSERT INTO tags (" + key(engine) + ", value, run_uuid) VALUES ('null', NULL, :run)", runs[-1][1])
        do("UPDATE runs SET end_time = NULL WHERE run_uuid = :run", runs[-1][1])
    engine.dispose()


def key(engine):
    return engine.dialect.identifier_preparer.quote("key")


def make_database(server, name):
    """A database of a server's, and its URI."""
    pg = server.startswith("postgresql")
    engine = sqlalchemy.create_engine(server + ("postgres" if pg else ""), isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sqlalchemy.text(f"CREATE DATABASE {name}" + ("" if pg else " CHARACTER SET utf8mb4")))
    engine.dispose()
    return server + name


def at_revision(uri, revision):
    """Tables as the MLflow of a revision made them, by MLflow's own migrations, with
    rows in the columns that were there."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine
    import mlflow.store.tracking.dbmodels.initial_models as initial

    engine = create_sqlalchemy_engine(uri)
    initial.Base.metadata.create_all(engine)
    config = _get_alembic_config(uri)
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, revision)
    rows = {
        "experiments": [dict(experiment_id=0, name="Default", lifecycle_stage="active"), dict(experiment_id=7, name="old", artifact_location="/a/7", lifecycle_stage="active", creation_time=5, last_update_time=5)],
        "runs": [dict(run_uuid=id, name=name, experiment_id=7, artifact_uri="/a/7/" + id, status="FINISHED", lifecycle_stage="active", start_time=n, end_time=n + 1, user_id="u", source_type="LOCAL", source_name="", source_version="", entry_point_name="") for n, (id, name) in enumerate([("a" * 32, "named"), ("b" * 32, None)], 1)],
        "params": [dict(key="lr", value="0.1", run_uuid="a" * 32)],
        "tags": [dict(key="mlflow.runName", value="tagged", run_uuid="b" * 32), dict(key="null", value=None, run_uuid="a" * 32)],
        "metrics": [dict(key="loss", value=v, timestamp=9, step=s, is_nan=False, run_uuid="a" * 32) for s, v in enumerate([0.5, 0.25])],
        "latest_metrics": [dict(key="loss", value=0.25, timestamp=9, step=1, is_nan=False, run_uuid="a" * 32)],
        "registered_models": [dict(name="m", creation_time=5, last_updated_time=5)],
        "model_versions": [dict(name="m", version=n, creation_time=5, last_updated_time=5, current_stage=s, source="/a/7/x", run_id="a" * 32, status="READY", storage_location=None) for n, s in [(1, "Production"), (2, "None")]],
        "registered_model_aliases": [dict(name="m", alias="best", version=1)],
    }
    there = sqlalchemy.MetaData()
    there.reflect(engine)
    with engine.begin() as db:
        if uri.startswith("mysql"):
            db.execute(sqlalchemy.text("SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"))
        for name, all in rows.items():
            if name in there.tables:
                table = there.tables[name]
                for row in all:
                    db.execute(table.insert().values({k: v for k, v in row.items() if k in table.columns}))
    engine.dispose()


def read_at(revision, uris):
    """What the client reads of two databases at a revision, once the second is upgraded."""
    from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine

    for uri in uris:
        at_revision(uri, revision)
    engine = create_sqlalchemy_engine(uris[1])
    _upgrade_db(engine)
    engine.dispose()
    return read(uris[1])


def main():
    directory, seed = sys.argv[1], int(sys.argv[2])
    rng = random.Random(seed)
    os.chdir(directory)
    out = {}
    if sys.argv[3:4] == ["--server"]:
        server = sys.argv[4]
        uri = make_database(server, "v3" if V3 else "v2")
        bend_tables(uri, write(uri, rng))
        out[uri] = read(uri)
        if V3:
            old = [make_database(server, name) for name in ["v1_28", "v1_28_upgraded"]]
            out[old[0]] = read_at("cc1f77228345", old)
        print("\n" + json.dumps(out))
        return
    db = f"sqlite:///{directory}/mlflow.db"
    bend_tables(db, write(db, rng))
    out[db] = read(db)
    files = f"{directory}/mlruns-files"
    bend_files(files, write(files, rng), rng)
    for store in [files] + sys.argv[3:]:
        out[store] = read(store)
    if V3:
        for revision in ["89d4b8295536", "c48cb773bb87", "7f2a7d5fae7d"]:
            old = f"sqlite:///{directory}/{revision}.db"
            out[old] = read_at(revision, [old, old + ".upgraded"])
    print("\n" + json.dumps(out))


main()
