package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache"
)

// known are the metrics that a daemon has, as it gives them.
func known(t *testing.T) map[string]bool {
	t.Helper()
	d := &daemon{cache: cache.New(cache.Options{}), stores: &stores{}}
	d.meter = newMeter(d)
	d.meter.answered.WithLabelValues("read").Observe(1)
	d.meter.failed.WithLabelValues("read", "EIO").Inc()
	d.meter.failed.WithLabelValues("open", "EIO").Inc()
	if got := d.meter.errors(); len(got) != 1 || got["EIO"] != 2 {
		t.Errorf("the errors that programs got are %v", got)
	}
	names := map[string]bool{}
	for l := range strings.Lines(string(d.meter.text())) {
		name := regexp.MustCompile(`^[a-z_]+`).FindString(l)
		if strings.HasPrefix(name, metricsPrefix) {
			names[name] = true
		}
	}
	if len(names) < len(measures) {
		t.Fatalf("only %d metrics", len(names))
	}
	return names
}

// TestDashboardAsksForKnownMetrics fails when a panel of packaging/grafana.json stays
// empty because it asks for a metric that the daemon does not have.
func TestDashboardAsksForKnownMetrics(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../packaging/grafana.json")
	if err != nil || !json.Valid(b) {
		t.Fatal(err)
	}
	have := known(t)
	asked := regexp.MustCompile(metricsPrefix+`[a-z_]+`).FindAllString(string(b), -1)
	if len(asked) < 15 {
		t.Errorf("it asks for %d", len(asked))
	}
	for _, name := range asked {
		if !have[name] {
			t.Errorf("there is no %s", name)
		}
	}
}

// TestMetricsPageNamesEachMetric fails when docs/metrics.md leaves a metric out, or
// names one that the daemon does not have.
func TestMetricsPageNamesEachMetric(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(b), -1) {
		named = append(named, metricsPrefix+m[1])
	}
	have := map[string]bool{}
	for name := range known(t) {
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, part); ok {
				name = base
			}
		}
		have[name] = true
		if !slices.Contains(named, name) {
			t.Errorf("it does not name %s", name)
		}
	}
	for _, name := range named {
		if !have[name] {
			t.Errorf("there is no %s", name)
		}
	}
}

// TestPasswordIsFoundInArgument fails when the password in a command line's address
// stays visible in `ps`, or when something else is hidden.
func TestPasswordIsFoundInArgument(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"http://h": "", "http://u@h": "", "http://u:p@h/x": "p", "--tracking-uri=https://u:p@ss@h:1/a@b:c": "p@ss",
		"http://h/a:b@c": "", "no://": "", "": "", "http://u:@h": "", "postgresql+x://u:s/ec?r#et@h?q=1": "u:s/ec?r#et@h?q=1",
		"--tracking-uri=mssql+pyodbc:///?odbc_connect=secret": "/?odbc_connect=secret",
	} {
		if begin, end := passwordIn(s); s[begin:end] != want {
			t.Errorf("%q: %q", s, s[begin:end])
		}
	}
}
