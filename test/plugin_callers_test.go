package test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mlflowReads are the functions of MLflow's that download to a directory which they do not
// name, and do no more than read there, start a process that reads, or copy. The others
// stand in _WRITES of mlflowfs._mlflow.
var mlflowReads = []string{
	"mlflow.johnsnowlabs _load_model", "mlflow.models.model load", "mlflow.pyfunc _get_model_dependencies", "mlflow.pyfunc _load_model_or_server",
	"mlflow.pyfunc.backend predict", "mlflow.pyfunc.backend prepare_env", "mlflow.pyfunc.backend serve", "mlflow.pyfunc.backend serve_stdin",
	"mlflow.pytorch load_state_dict", "mlflow.rfunc.backend predict", "mlflow.rfunc.backend serve",
	"mlflow.sagemaker _deploy", "mlflow.sagemaker deploy_transform_job", "mlflow.sagemaker push_model_to_sagemaker",
	"mlflow.shap load_explainer", "mlflow.spark _load_model", "mlflow.spark maybe_copy_from_uri",
	"mlflow.server.handlers _send_artifact", // in a server, where the plug-in is off
	"mlflow.utils.model_utils _get_flavor_configuration_from_uri", "mlflow.utils.requirements_utils _capture_imported_modules",
}

// TestPluginKnowsMLflowsCallers fails when MLflow has a function that downloads to a
// directory which it does not name, and nobody has looked whether it writes there: a mount
// can't be written to, and what processes share must not be.
func TestPluginKnowsMLflowsCallers(t *testing.T) {
	t.Parallel()
	var writes []string
	source := readFile("../packaging/python/src/mlflowfs/_mlflow.py")
	_, table, _ := strings.Cut(source, "_WRITES = {")
	table, _, _ = strings.Cut(table, "\n}")
	for _, m := range regexp.MustCompile(`\("(.+)", "(.+)"\)`).FindAllStringSubmatch(table, -1) {
		writes = append(writes, m[1]+" "+m[2])
	}
	for _, r := range []release{"mlflow3", "mlflow2"} {
		callers := strings.Split(strings.TrimSpace(r.python(t, nil, "", "plugin_callers.py")), "\n")
		for _, c := range callers {
			if !slices.Contains(mlflowReads, c) && !slices.Contains(writes, c) {
				t.Errorf("%s: does %s write to what it has downloaded?", r, c)
			}
		}
		if len(callers) < 20 {
			t.Errorf("%s: %q", r, callers)
		}
	}
	if len(writes) < 5 {
		t.Errorf("%q", writes)
	}
}
