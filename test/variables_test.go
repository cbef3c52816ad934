package test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unconcerned are variables that the client looks for, and that change nothing of what it
// reads: of Python and of this test, telemetry and traces, what is written or served, and
// what names a process to a service.
var unconcerned = strings.Fields(`PYTEST_CURRENT_TEST PYTHONWARNINGS GIT_PYTHON_REFRESH PATH LANG TEMP TMP
	MLFLOW_DISABLE_TELEMETRY MLFLOW_DATABRICKS_TRAFFIC_ID MLFLOW_TRACE_ARCHIVAL_CONFIG MLFLOW_GCS_UPLOAD_CHUNK_SIZE
	_MLFLOW_SERVER_ARTIFACT_ROOT _MLFLOW_HTTP_REQUEST_MAX_BACKOFF_FACTOR_LIMIT _MLFLOW_HTTP_REQUEST_MAX_RETRIES_LIMIT
	AWS_CSM_ENABLED AWS_SIGV4A_SIGNING_REGION_SET AWS_BEARER_TOKEN_S3 AWS_DISABLE_HOST_PREFIX_INJECTION
	BOTOCORE_EXPERIMENTAL__PLUGINS BOTO_EXPERIMENTAL__ADD_PROXY_HOST_HEADER
	AZURE_HTTP_USER_AGENT AZURE_SDK_TRACING_IMPLEMENTATION AZURE_TRACING_ENABLED
	DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA GCLOUD_PROJECT`)

// TestVariablesThatTheClientReadsAreListed fails when MLflow's client (3.17 or 2.22), or
// a library of its, looks for a variable as it reads, by each kind of store, of which the
// page of settings says neither that it is followed nor that it is not, and for which no
// SDK in the program looks, either.
func TestVariablesThatTheClientReadsAreListed(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, name := range regexp.MustCompile("`([A-Z][A-Z0-9_]+)`").FindAllStringSubmatch(readFile("../docs/configuration.md"), -1) {
		listed[name[1]] = true
	}
	bin, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	program := readFile(bin)
	env := theObjects(t).env()
	found := 0
	for _, where := range []string{"s3", "gs", "wasbs", "served", "served 2.22", "sqlite 3.17", "files 2.22"} {
		t.Run(where, func(t *testing.T) {
			var r release
			var tracking string
			var uris []string
			if i := slices.Index(storeKinds, where); i >= 0 {
				s := shared.get(t, where)
				r, tracking, uris = s.release, s.uri, []string{"runs:/" + s.Wide + "/doc", "models:/echo@champion"}
			} else {
				or := originAt(t, where)
				r, tracking, uris = or.release, or.url(), []string{"runs:/" + or.Run + "/d", "models:/" + or.Model + "@champion"}
			}
			out, err := runPython(r, env, tracking, "", "variables.py", uris...)
			var names []string
			if err == nil {
				err = json.Unmarshal(out, &names)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				found++
				if !listed[name] && !listed[strings.ToUpper(name)] && !slices.Contains(unconcerned, name) && !strings.Contains(program, name) {
					t.Errorf("the client looks for %s", name)
				}
			}
		})
	}
	if found < 100 {
		t.Errorf("%d were looked for in all: nothing was tested", found)
	}
}
