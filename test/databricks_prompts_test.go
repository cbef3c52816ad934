package test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// dbxPrompt is a prompt of the Unity Catalog.
const dbxPrompt = "main.s.ask"

// prompts are the routes of the Unity Catalog's prompts (unity_catalog_prompt_service.proto).
func (w *workspaceFake) prompts() []fakeRoute {
	const at = mlflowAPI + "unity-catalog/prompts/"
	aliases := []any{map[string]any{"alias": "prod", "version": "2"}}
	version := func(number string) map[string]any {
		v := map[string]any{"name": dbxPrompt, "version": number, "creation_timestamp": "2023-11-14T22:13:20.123Z", "last_updated_timestamp": "2023-11-14T22:13:21Z"}
		tag := func(key, value string) map[string]any { return map[string]any{"key": key, "value": value} }
		switch number {
		case "1":
			v["template"], v["tags"] = `"Say {{ it }}\né <b>\u0001"`, []any{tag("_mlflow_prompt_type", "text"), tag("_mlflow_other", "x"), tag("author", "ann")}
		case "2":
			v["template"], v["description"], v["aliases"] = `[{"role": "user", "content": "Say {{ it }}"}]`, "a chat", aliases
			v["tags"] = []any{tag("_mlflow_prompt_type", "chat"), tag("_mlflow_prompt_model_config", `{"temperature": 0.5}`), tag("_mlflow_prompt_response_format", `{"type": "object"}`)}
		}
		return v
	}
	of := func(answer func(rest []string) any) func([]string, map[string]any) any {
		return func(path []string, _ map[string]any) any {
			if path[0] != dbxPrompt {
				return missing
			}
			return answer(path[1:])
		}
	}
	return []fakeRoute{
		route("GET", at+"([^/]+)", of(func([]string) any {
			return map[string]any{"name": dbxPrompt, "creation_timestamp": "2023-11-14T22:13:20Z", "aliases": aliases}
		}), "name"),
		route("GET", at+"([^/]+)/versions/([0-9]+)", of(func(rest []string) any {
			if v := version(rest[0]); v["template"] != nil {
				return v
			}
			return missing
		}), "name", "version"),
		route("GET", at+"([^/]+)/versions/by-alias/([^/]+)", of(func(rest []string) any {
			if rest[0] == "prod" {
				return version("2")
			}
			return missing
		}), "name", "alias"),
		route("POST", at+"([^/]+)/versions/search", func(path []string, in map[string]any) any {
			if path[0] != dbxPrompt {
				return missing
			}
			if field(in, "page_token") == "" {
				return pageOf("prompt_versions", []any{version("1")}, "more")
			}
			return pageOf("prompt_versions", []any{version("2")}, "")
		}, "name", "max_results", "page_token"),
	}
}

// TestDatabricksPromptsAreTheClients fails when a prompt of a Databricks Unity Catalog, by
// its version or its alias, is not the PromptVersion that MLflow's own client gives; when a
// version is missing from its directory; when what is no prompt is shown as one, or a prompt
// among the models; or when a model costs a question about prompts.
func TestDatabricksPromptsAreTheClients(t *testing.T) {
	t.Parallel()
	w := newWorkspaceFake(t)
	var theirs struct {
		Numbers  []string
		Versions map[string]any
	}
	if err := json.Unmarshal([]byte(release("mlflow3").python(t, w.env(), "", "databricks_prompts.py", dbxPrompt, "1", "2", "@prod")), &theirs); err != nil {
		t.Fatal(err)
	}
	m := mountAt(t, "databricks", append(w.env(), fast...))
	for which, want := range theirs.Versions {
		at := m.path("prompts", dbxPrompt, which)
		if strings.HasPrefix(which, "@") {
			at = m.path("prompts", dbxPrompt+which)
		}
		var got any
		text, err := read(at + "/prompt.json")
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is\n%v, and not\n%v, %v", which, got, want, err)
		}
	}
	if got, err := read(m.path("prompts", dbxPrompt, "1", "template.txt")); err != nil || string(got) != "Say {{ it }}\né <b>\x01" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := output("ls", m.path("prompts", dbxPrompt)); err != nil || !slices.Equal(lines(got), theirs.Numbers) || len(got) == 0 {
		t.Errorf("the versions are %s, and not %s, %v", got, theirs.Numbers, err)
	}
	if got, err := command(t, append(w.env(), fast...), "cat", "prompts:/"+dbxPrompt+"@prod/messages.json"); err != nil || !strings.Contains(string(got), "{{ it }}") {
		t.Errorf("%s, %v", got, err)
	}
	for _, none := range []string{"prompts/" + dbxPrompt + "/99", "prompts/" + dbxPrompt + "@none", "prompts/main.s.none", "prompts/" + dbxUC, "prompts/two.parts", "models/" + dbxPrompt} {
		if _, err := output("stat", m.path(none)); err == nil {
			t.Errorf("%s is there", none)
		}
	}
	w.take()
	if _, err := output("ls", m.path("models", dbxUC, "1")); err != nil {
		t.Error(err)
	}
	if asked := strings.Join(w.take(), "\n"); strings.Contains(asked, "prompts") {
		t.Errorf("a model costs\n%s", asked)
	}
}
