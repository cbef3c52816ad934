"""What MLflow's own client reads of the prompts of a Databricks Unity Catalog.

usage: databricks_prompts.py NAME VERSION|@ALIAS...

Prints a JSON object: by each version the arguments of its PromptVersion, and the numbers
of all versions.
"""

import json
import sys

import mlflow
from mlflow import MlflowClient

name, *wanted = sys.argv[1:]
c = MlflowClient()
page = c.search_prompt_versions(name)
out = {"numbers": [], "versions": {}}
while page:
    out["numbers"] += [str(v.version) for v in page]
    page = page.token and c.search_prompt_versions(name, page_token=page.token)
for which in wanted:
    p = mlflow.genai.load_prompt(f"prompts:/{name}{which}" if which.startswith("@") else f"prompts:/{name}/{which}", link_to_model=False)
    fields = {k: getattr(p, k) for k in ("name", "version", "template", "commit_message", "tags", "aliases", "last_updated_timestamp", "user_id", "response_format", "model_config")}
    fields["creation_timestamp"] = p.creation_timestamp.ToMilliseconds()  # a message of protobuf's, there
    out["versions"][which] = fields
for missing in f"prompts:/{name}/99", "prompts:/main.s.none/1":
    if mlflow.genai.load_prompt(missing, allow_missing=True, link_to_model=False) is not None:
        out["versions"][missing] = "is there"
print(json.dumps(out))
