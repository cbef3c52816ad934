"""Makes prompts, traces and datasets with the installed MLflow's own functions, and holds
files that mlflowfs shows of them against what those functions give.

    genai.py prompts make STEM       makes prompts whose names begin with STEM
    genai.py prompts check DIR STEM  compares those below DIR/prompts

What differs is printed, one sentence a line.
"""

import json
import os
import sys
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


globals()[f"{sys.argv[2]}_{sys.argv[1]}"](*sys.argv[3:])
