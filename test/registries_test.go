package test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// TestEachStoreOfTheClientIsTold fails when a store that MLflow's client knows, of 3.17 or
// 2.22, stands in no row of docs/uris.md, or one that it does not know does; or when what
// the page says of a tracking or registry URI is not what mlflowfs does with one.
func TestEachStoreOfTheClientIsTold(t *testing.T) {
	t.Parallel()
	page := map[string]map[string]string{} // of each table: scheme to what is said
	table := ""
	for l := range strings.Lines(readFile("../docs/uris.md")) {
		cells := strings.Split(strings.TrimSpace(l), "|")
		switch {
		case len(cells) < 4:
			table = ""
		case strings.TrimSpace(cells[1]) == "a tracking URI", strings.TrimSpace(cells[1]) == "a registry URI", strings.TrimSpace(cells[1]) == "artifacts at":
			table = strings.TrimSpace(cells[1])
			page[table] = map[string]string{}
		case table != "" && cells[1] != "---":
			for _, s := range strings.Split(cells[1], ",") {
				if s = strings.Trim(s, " `"); s == "a path" {
					s = ""
				}
				page[table][s] = strings.TrimSpace(cells[2])
			}
		}
	}
	known := map[string]map[string]bool{}
	for _, r := range []release{"mlflow3", "mlflow2"} {
		var of map[string][]string
		out := r.code(t, t.TempDir(), nil, "", "-c", `
import json
from mlflow.tracking._tracking_service.utils import _tracking_store_registry
from mlflow.tracking._model_registry.utils import _get_store_registry
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
print(json.dumps({"a tracking URI": list(_tracking_store_registry._registry), "a registry URI": list(_get_store_registry()._registry), "artifacts at": list(_artifact_repository_registry._registry)}))
`)
		if err := json.Unmarshal([]byte(lastLine(out)), &of); err != nil {
			t.Fatal(err, out)
		}
		for table, schemes := range of {
			if known[table] == nil {
				known[table] = map[string]bool{}
			}
			for _, s := range schemes {
				known[table][s] = true
				if page[table][s] == "" {
					t.Errorf("%s: %s: docs/uris.md does not tell of %q", r, table, s)
				}
			}
		}
	}
	states := regexp.MustCompile(`^(works\b|through the server|not: )`)
	for table, rows := range page {
		for s, says := range rows {
			if !known[table][s] {
				t.Errorf("%s: MLflow's client knows no %q", table, s)
			}
			if !states.MatchString(says) {
				t.Errorf("%s: %q: %q does not begin with what it is", table, s, says)
			}
		}
	}
	dir := t.TempDir()
	for flag, table := range map[string]string{"--tracking-uri": "a tracking URI", "--registry-uri": "a registry URI"} {
		for s, says := range page[table] {
			uri := s + "://nobody:secret@127.0.0.1:1/none"
			switch s {
			case "", "file", "sqlite":
				continue // TestDefaultStoreIsTheClients, TestLocalStoresAgainstMLflow
			case "databricks", "databricks-uc":
				uri = s
			case "uc":
				uri = "uc:http://127.0.0.1:1"
			}
			env := append([]string{"DATABRICKS_HOST=http://127.0.0.1:1", "DATABRICKS_TOKEN=secret", "HOME=" + dir, "MLFLOW_HTTP_REQUEST_MAX_RETRIES=0"}, "MLFLOWFS_CACHE_DIR=none")
			args := []string{"ls", flag, uri, "models:/a.b.c/1"}
			if flag == "--registry-uri" {
				args = append(args, "--tracking-uri", dir)
			}
			out, err := mlflowfs(t, env, args...).CombinedOutput()
			asked := regexp.MustCompile(`connection refused`).Match(out)
			if err == nil || asked != strings.HasPrefix(says, "works") || strings.Contains(string(out), "secret") {
				t.Errorf("%s: %s: the page says %q, and mlflowfs %s, %v", table, uri, says, out, err)
			}
		}
	}
}
