package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// workspaceAnswer is what databricks_reads.py prints.
type workspaceAnswer struct {
	Experiments, Runs, Logged []string
	Models                    map[string]map[string]string
}

// dbxURIs are what a user may ask a workspace for.
var dbxURIs = []string{
	"runs:/" + dbxRun + "/many", "runs:/" + dbxRun + "/code/a b+c.py", "runs:/" + dbxRun + "/model.pkl",
	"models:/" + dbxModel,
	"models:/" + dbxUC + "/1", "models:/" + dbxUC + "@champion", "models:/" + dbxOwn + "/1",
	"dbfs:" + rootOfDBFS, "dbfs:" + rootOfVolume,
	"dbfs:/databricks/mlflow-tracking/" + dbxExperiment + "/" + dbxRun + "/artifacts/code",
}

// TestDatabricksIsReadAsMLflowReadsIt fails when a run, a logged model, a model of Unity
// Catalog or of the workspace, or a path of DBFS or of a volume, is not found in a
// Databricks workspace, or its files differ from what MLflow's client downloads, or more
// is asked for than that asks for.
func TestDatabricksIsReadAsMLflowReadsIt(t *testing.T) {
	t.Parallel()
	w, dst := newWorkspaceFake(t), t.TempDir()
	for _, registry := range []struct {
		env  []string
		uris []string
	}{
		{w.env(), dbxURIs},
		{w.env("MLFLOW_DISABLE_DATABRICKS_SDK_FOR_RUN_ARTIFACTS=true"), dbxURIs[:4]},
		{w.env("MLFLOW_REGISTRY_URI=databricks"), []string{"models:/" + dbxWorkspace + "/1", "models:/" + dbxWorkspace + "/Production"}},
	} {
		var theirs workspaceAnswer
		at := filepath.Join(dst, fmt.Sprint(len(registry.uris)))
		if err := json.Unmarshal([]byte(release("mlflow3").python(t, registry.env, "", "databricks_reads.py", append([]string{at}, registry.uris...)...)), &theirs); err != nil {
			t.Fatal(err)
		}
		asked := strings.Split(strings.Join(w.take(), "\n"), "GET /mark")[1:]
		m := mountAt(t, "databricks", registry.env)
		named, err := output("ls", m.path("models"))
		for name := range theirs.Models { // some have the tag of MLflow's prompts
			if !slices.Contains(lines(named), name) || err != nil {
				t.Errorf("%s is not among the models:\n%s%v", name, named, err)
			}
		}
		m.stop()
		w.take()
		for i, uri := range registry.uris {
			ours := t.TempDir()
			if _, err := command(t, registry.env, "download", "--dst", ours, uri); err != nil {
				t.Errorf("%s: %v", uri, err)
				continue
			}
			own := filepath.Join(at, fmt.Sprint(i))
			if strings.HasPrefix(uri, "dbfs:"+rootOfDBFS) { // MLflow's client reads an empty file of DBFS as {} (verify_rest_response)
				if err := os.Truncate(filepath.Join(own, "dir", "empty"), 0); err != nil {
					t.Error(err)
				}
			}
			differ(t, uri, ours, own)
			if mine := w.take(); len(mine) > strings.Count(asked[i], "/api/")+strings.Count(asked[i], " /dbfs/") {
				t.Errorf("%s takes\n%s\nand MLflow's client %s", uri, strings.Join(mine, "\n"), asked[i])
			}
		}
	}
}
