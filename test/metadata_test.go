package test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestRunMetadataIsTheClients fails when what was logged to runs is not there as
// files, or is not what MLflow's own client says, on some kind of store.
func TestRunMetadataIsTheClients(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			env := []string{"MLFLOW_TRACKING_URI=" + s.uri}
			out := s.release.python(t, env, "", "metadata.py", "metadata")
			var runs map[string]struct {
				Name         string
				Params, Tags map[string]string
				Metrics      map[string][][3]any
				Last         map[string]string
			}
			if err := json.Unmarshal([]byte(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]), &runs); err != nil || len(runs) != 3 {
				t.Fatal(err, out)
			}
			m := mountAt(t, s.uri, fast)
			top := m.path("experiments", "metadata")
			names, err := output("ls", top)
			if err != nil || strings.Count(string(names), "\n") != 6 || !slices.Contains(lines(names), "runs.csv") {
				t.Errorf("%s, %v", names, err)
			}
			if _, err := output("ls", "-lR", top); err != nil {
				t.Error(err)
			}
			table := rowsOf(t, filepath.Join(top, "runs.csv"))
			for id, run := range runs {
				name := run.Name
				if name == "runs.csv" {
					name += "-" + id[:8]
				}
				at := filepath.Join(top, name)
				pairs(t, filepath.Join(at, "params"), run.Params)
				pairs(t, filepath.Join(at, "tags"), run.Tags)
				files, err := output("ls", filepath.Join(at, "metrics"))
				if err != nil || len(lines(files)) != len(run.Metrics) {
					t.Errorf("%s: %q, %v", name, files, err)
				}
				for key, points := range run.Metrics {
					rows := rowsOf(t, filepath.Join(at, "metrics", strings.ReplaceAll(key, "/", "%2F")+".csv"))
					if len(rows) != len(points) {
						t.Errorf("%s %s: %d points, and not %d", name, key, len(rows), len(points))
						continue
					}
					for i, p := range points {
						if r := rows[i]; r["step"] != fmt.Sprint(p[0]) || r["timestamp"] != strconv.FormatInt(int64(p[1].(float64)), 10) || !sameNumber(r["value"], p[2].(string)) {
							t.Errorf("%s %s: %v, and not %v", name, key, r, p)
							break
						}
					}
				}
				row := map[string]string{}
				for _, r := range table {
					if r["run_id"] == id {
						row = r
					}
				}
				if row["run_name"] != run.Name || row["status"] != "FINISHED" {
					t.Errorf("runs.csv has %v for %s", row, run.Name)
				}
				for k, v := range run.Params {
					if row["params."+k] != v {
						t.Errorf("runs.csv: %s is %q, and not %q", k, row["params."+k], v)
					}
				}
				for k, v := range run.Last {
					if !sameNumber(row["metrics."+k], v) {
						t.Errorf("runs.csv: %s is %q, and not %q", k, row["metrics."+k], v)
					}
				}
			}
			out2, err := output("grep", "-rlx", "0.1", top, "--include=lr")
			if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out2)), "many/params/lr") {
				t.Errorf("grep finds %s, %v", out2, err)
			}
		})
	}
}

// pairs holds a directory's files against names and contents.
func pairs(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	files, err := output("ls", dir)
	if err != nil || len(lines(files)) != len(want) {
		t.Errorf("%s: %q, and not %q, %v", dir, files, slices.Sorted(maps.Keys(want)), err)
	}
	for k, v := range want {
		b, err := read(filepath.Join(dir, strings.ReplaceAll(k, "/", "%2F")))
		if err != nil || string(b) != v {
			t.Errorf("%s of %s is %q, and not %q, %v", k, dir, b, v, err)
		}
	}
}

// rowsOf reads a CSV file.
func rowsOf(t *testing.T, file string) (out []map[string]string) {
	t.Helper()
	b, err := read(file)
	if st, serr := os.Stat(file); serr != nil || st.Size() != int64(len(b)) {
		t.Errorf("%s: %d bytes were read, %v, %v", file, len(b), st, serr)
	}
	rows, cerr := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil || cerr != nil || len(rows) == 0 {
		t.Fatal(file, err, cerr)
	}
	for _, r := range rows[1:] {
		row := map[string]string{}
		for i, v := range r {
			row[rows[0][i]] = v
		}
		out = append(out, row)
	}
	return out
}

func sameNumber(a, b string) bool {
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	// A database holds what is infinite as the largest number there is.
	big := func(v float64) float64 {
		if math.Abs(v) == math.MaxFloat64 {
			return math.Copysign(math.Inf(1), v)
		}
		return v
	}
	x, y = big(x), big(y)
	return err1 == nil && err2 == nil && (x == y || (math.IsNaN(x) && math.IsNaN(y)))
}
