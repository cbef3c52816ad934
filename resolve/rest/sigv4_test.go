package rest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSigV4AgainstBotocore fails when a tracking server behind AWS refuses what
// MLFLOW_TRACKING_AWS_SIGV4 signs, because the signature is not the one that
// botocore, which MLflow's own signatures come from, makes of the same request.
func TestSigV4AgainstBotocore(t *testing.T) {
	dir := os.Getenv("MLFLOWFS_TESTENV")
	if dir == "" {
		dir = "../../.testenv"
	}
	c := exec.Command(filepath.Join(dir, "mlflow3", "bin", "python"), "../../test/sigv4.py", "AKIDEXAMPLE", "s3cret/key", "session+token", "eu-west-3")
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	aws := map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cret/key", "AWS_SESSION_TOKEN": "session+token", "AWS_DEFAULT_REGION": "eu-west-3",
		"AWS_REGION": "not-this-1", "AWS_CA_BUNDLE": "/nowhere", // botocore looks at neither
		"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
	}
	t.Setenv("AWS_CA_BUNDLE", "/nowhere") // the SDK looks at the process's
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	ask := func(vars map[string]string) error {
		t.Helper()
		client, err := NewClient("http://127.0.0.1:"+strings.TrimSpace(port)+"/pre fix", func(name string) string { return cmp.Or(vars[name], aws[name]) }, quiet)
		if err != nil {
			t.Fatal(err)
		}
		var v struct{}
		ctx := context.Background()
		return errors.Join(
			client.JSON(ctx, "/api/2.0/mlflow/experiments/search", url.Values{"max_results": {"1"}, "filter": {"name = 'a b+c/é'"}}, nil, &v),
			client.JSON(ctx, "/api/2.0/mlflow/runs/search", nil, map[string]any{"experiment_ids": []string{"0"}}, &v),
			client.JSON(ctx, "/api/2.0/mlflow-artifacts/artifacts/1/é ü%/x", nil, nil, &v),
		)
	}
	signed := map[string]string{"MLFLOW_TRACKING_AWS_SIGV4": "true", "MLFLOW_TRACKING_TOKEN": "not this", "MLFLOW_TRACKING_AUTH": "kubernetes"}
	if err := ask(signed); err != nil {
		t.Error(err)
	}
	aws["AWS_SECRET_ACCESS_KEY"] = "another"
	if err := ask(signed); !errors.Is(err, fs.ErrPermission) {
		t.Error("a wrong key:", err)
	}
	if err := ask(nil); !errors.Is(err, fs.ErrPermission) {
		t.Error("no signature:", err)
	}
	aws["AWS_DEFAULT_REGION"], aws["AWS_REGION"] = "", ""
	if err := ask(signed); err == nil || !strings.Contains(err.Error(), "AWS_DEFAULT_REGION") {
		t.Error("no region:", err)
	}
}
