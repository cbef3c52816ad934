package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
)

// TestScopeTellsMountsApart fails when a program that asks where an artifact is can be led
// to a mount that shows another server, or shows it to somebody else, or reads elsewhere;
// or when it is not led to one that shows the same.
func TestScopeTellsMountsApart(t *testing.T) {
	home := t.TempDir()
	t.Chdir(home)
	scope := func(takes scope, environ ...string) string {
		t.Helper()
		p := &process{environ: append([]string{"HOME=" + home}, environ...)}
		o := p.options(takes, pflag.NewFlagSet("", pflag.ContinueOnError))
		if err := o.read(); err != nil {
			t.Fatal(err)
		}
		return o.scope()
	}
	const server = "MLFLOW_TRACKING_URI=http://mlflow.example:5000"
	for _, same := range [][2][]string{
		{{server}, {server + "/"}},
		{{server}, {server, "MLFLOW_REGISTRY_URI=http://mlflow.example:5000"}},
		{{"MLFLOW_TRACKING_URI=http://ann:a@mlflow.example:5000"}, {"MLFLOW_TRACKING_URI=http://ann:b@mlflow.example:5000"}}, // no secret is in it
		{{server}, {server, "MLFLOWFS_CACHE_DIR=none", "MLFLOWFS_LOG_LEVEL=debug", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=1"}},
		{{"MLFLOW_TRACKING_URI=sqlite:///mlflow.db"}, {"MLFLOW_TRACKING_URI=sqlite:///" + filepath.Join(home, "mlflow.db")}},
		{{}, {"MLFLOW_TRACKING_URI=sqlite:///mlflow.db"}},
		{{"MLFLOW_TRACKING_URI=mlruns"}, {"MLFLOW_TRACKING_URI=" + filepath.Join(home, "mlruns")}},
	} {
		if scope(caching, same[0]...) != scope(mounting, same[1]...) {
			t.Errorf("%v and %v are not led to one mount", same[0], same[1])
		}
	}
	seen := map[string][]string{}
	for _, other := range [][]string{
		{server},
		{"MLFLOW_TRACKING_URI=http://mlflow.example:5001"},
		{"MLFLOW_TRACKING_URI=https://mlflow.example:5000"},
		{server, "MLFLOW_REGISTRY_URI=http://registry.example"},
		{server, "MLFLOW_TRACKING_USERNAME=ann", "MLFLOW_TRACKING_PASSWORD=a"},
		{server, "MLFLOW_TRACKING_USERNAME=bob", "MLFLOW_TRACKING_PASSWORD=a"},
		{server, "MLFLOW_TRACKING_TOKEN=a.b"},
		{server, "MLFLOW_WORKSPACE=team-a"},
		{server, "MLFLOW_S3_ENDPOINT_URL=http://s3.example"},
		{server, "AWS_PROFILE=other"},
		{server, "MLFLOWFS_ARTIFACT_ACCESS=server"},
		{server, "MLFLOWFS_ALLOW_ADDRESS=10.0.0.0/8"},
		{server, "MLFLOWFS_OFFLINE=true"},
		{"MLFLOW_TRACKING_URI=sqlite:///other.db"},
		{"MLFLOW_TRACKING_URI=mlruns"},
	} {
		id := scope(mounting, other...)
		if before, ok := seen[id]; ok {
			t.Errorf("%v and %v are led to one mount", before, other)
		}
		seen[id] = other
	}
}

// TestTokenOfAFileIsForItsServer fails when a server that a variable or a flag names is
// told the token that a file of settings has for another.
func TestTokenOfAFileIsForItsServer(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	for _, x := range []struct{ text, uri, token string }{
		{"tracking-uri: http://one.example\ntoken-file: /t\n", "", "/t"},
		{"tracking-uri: http://one.example\ntoken-file: /t\n", "http://one.example/", "/t"},
		{"tracking-uri: http://one.example\ntoken-file: /t\n", "http://two.example", ""},
		{"token-file: /t\n", "http://two.example", "/t"},
	} {
		if err := os.WriteFile(file, []byte(x.text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := &process{environ: []string{"MLFLOWFS_CONFIG=" + file, "MLFLOW_TRACKING_URI=" + x.uri}}
		o := p.options(client, pflag.NewFlagSet("", pflag.ContinueOnError))
		if err := o.read(); err != nil || o.Server.TokenFile != x.token {
			t.Errorf("%q, asked for %s: the token is of %q, %v", x.text, x.uri, o.Server.TokenFile, err)
		}
	}
}
