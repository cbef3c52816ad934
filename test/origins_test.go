package test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// odd is a row of names that no tracking server takes.
const odd = "odd names"

// row is one way to name artifacts.
type row struct {
	key     string
	kw      map[string]string // arguments of download_artifacts
	args    []string          // of our commands
	mounted string            // where the mount shows it, or empty
}

func (o *origin) rows() []row {
	byURI := func(uri, mounted string) row {
		return row{uri, map[string]string{"artifact_uri": uri}, []string{uri}, mounted}
	}
	run, model := "runs/"+o.Run, "models/"+o.Model
	rows := []row{
		{"run_id", map[string]string{"run_id": o.Run}, []string{"--run-id", o.Run}, run},
		{"run_id and path", map[string]string{"run_id": o.Run, "artifact_path": "d/e"}, []string{"--run-id", o.Run, "--path", "d/e"}, run + "/d/e"},
		byURI("runs:/"+o.Run+"/names", run+"/names"),
		byURI("runs:/"+o.Run+"/d/g.txt", run+"/d/g.txt"),
		byURI("runs:/"+o.Run+"/model", run+"/model"),
		byURI("models:/"+o.Model+"/1", model+"/1"),
		byURI("models:/"+o.Model+"@champion", model+"@champion"),
		byURI("models:/"+o.Model+"/latest", model+"/latest"),
		byURI("models:/"+o.Model+"/1/MLmodel", model+"/1/MLmodel"),
		byURI(o.URI, ""),
		byURI(o.URI+"/d", ""),
		byURI(o.URI+"/big.bin", ""),
	}
	if o.Odd != "" {
		rows = append(rows, row{odd, map[string]string{"run_id": o.Odd}, []string{"--run-id", o.Odd}, "runs/" + o.Odd})
	}
	if o.ModelID != "" {
		rows = append(rows, byURI("models:/"+o.ModelID, "models/"+o.ModelID))
	}
	return rows
}

// TestEveryOriginGivesWhatTheClientBrings fails when for some kind of origin, or
// some way to it, a way of naming artifacts does not give, by download, by ls or
// in the mount, what mlflow.artifacts gives.
func TestEveryOriginGivesWhatTheClientBrings(t *testing.T) {
	t.Parallel()
	o := theObjects(t)
	gs := []string{"STORAGE_EMULATOR_HOST=http://" + o.gcs}
	tls := append(s3Env(o.s3), "AWS_CA_BUNDLE="+o.ca, "MLFLOW_S3_ENDPOINT_URL=https://"+o.s3tls)
	for _, c := range []struct {
		origin, access string
		env            []string
		taken, reads   string // what resolve must say
	}{
		{"s3", "auto", s3Env(o.s3), "direct", "ranges"},
		{"s3", "auto", nil, "presigned", "ranges"},
		{"s3", "server", s3Env(o.s3), "server", "stream"},
		{"gs", "auto", gs, "direct", "ranges"},
		{"gs", "server", nil, "server", "stream"},
		{"wasbs", "auto", o.azureEnv(), "direct", "ranges"},
		{"wasbs", "server", nil, "server", "stream"},
		{"r2", "auto", tls, "direct", "ranges"},
		{"path", "auto", nil, "direct", "ranges"},
		{"path", "server", nil, "server", "ranges"},
		{"sftp", "auto", []string{"MLFLOWFS_ALLOW_STORE=sftp://root@" + o.sftp.addr()}, "direct", "ranges"},
		{"ftp", "auto", nil, "server", "stream"},
		{"served", "auto", nil, "presigned", "ranges"},
		{"served", "server", nil, "server", "stream"},
		{presigned, "auto", nil, "presigned", "ranges"},
		{"served 2.22", "auto", nil, "server", "stream"},
	} {
		name := c.origin + " " + c.access
		if c.env == nil {
			name += " without credentials"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			or := originAt(t, c.origin)
			env := append(join(c.env, fast), "MLFLOW_TRACKING_URI="+or.url())
			theirs := or.fetched(t)
			flags := []string{"--artifact-access", c.access}
			m := mountAt(t, or.url(), env, flags...)
			for _, r := range or.rows() {
				if r.key == odd && c.taken != "direct" {
					continue
				}
				if byServer := r.mounted == "" && strings.HasPrefix(r.key, or.URI); byServer && c.taken != "direct" && !strings.HasPrefix(or.URI, "mlflow-artifacts:") {
					continue // a place that no server knows has no way but the direct one
				}
				want := *theirs[r.key]
				if (c.origin == "ftp" || c.origin == "sftp") && r.key == "runs:/"+or.Run+"/model" && want.Error != "" {
					// MLflow's client can't, for a run with nothing of its own there; the
					// same model by its id it can.
					differ(t, r.key, m.path(r.mounted), theirs["models:/"+or.ModelID].Path)
					continue
				}
				if want.Error != "" {
					t.Errorf("%s: mlflow.artifacts fails: %s", r.key, want.Error)
					continue
				}
				dst := t.TempDir()
				got, err := command(t, env, append(join([]string{"download", "--dst", dst, "--quiet"}, flags), r.args...)...)
				if err != nil {
					t.Errorf("%s: %v", r.key, err)
					continue
				}
				base := filepath.Join(dst, want.below)
				if r.key == "run_id and path" && or.release == "mlflow2" { // which puts it below d/e
					want.root, want.below = filepath.Join(want.root, "d"), "e"
					base = filepath.Join(dst, want.below)
				}
				if at := strings.TrimSuffix(string(got), "\n"); at != base {
					t.Errorf("%s: downloaded to %s, and MLflow would have to %s", r.key, at, base)
				}
				differ(t, r.key+", downloaded", dst, want.root)
				if left, _ := filepath.Glob(dst + "/*/.mlflowfs-*"); len(left) > 0 {
					t.Errorf("%s: left behind: %v", r.key, left)
				}

				var list []fileInfo
				out, err := command(t, env, append(join([]string{"ls", "--json"}, flags), r.args...)...)
				if err := json.Unmarshal(out, &list); err != nil {
					t.Errorf("%s: ls: %v\n%s", r.key, err, out)
				}
				if d := gocmp.Diff(want.List, list); d != "" || err != nil {
					t.Errorf("%s: ls: %v %s", r.key, err, d)
				}
				if r.mounted != "" {
					var exclude []string
					if r.key == "run_id" { // which leaves the run's logged models out
						exclude = []string{"--exclude=model"}
					}
					differ(t, r.key+", mounted", m.path(r.mounted), want.Path, exclude...)
				}
				if st, err := os.Stat(want.Path); err == nil && st.Mode().IsRegular() {
					whole, _ := os.ReadFile(want.Path)
					if got, err := command(t, env, append(join([]string{"cat"}, flags), r.args...)...); !bytes.Equal(got, whole) || err != nil {
						t.Errorf("%s: cat gives %d bytes, %v", r.key, len(got), err)
					}
				}
			}
			var why resolution
			out, err := command(t, env, append(join([]string{"resolve", "--json"}, flags), "runs:/"+or.Run+"/d")...)
			if err := json.Unmarshal(out, &why); err != nil || len(why.Places) != 1 {
				t.Fatal(string(out), err)
			}
			if strings.Contains(string(out)+m.log.String(), ftpPassword) {
				t.Errorf("a password is shown:\n%s%s", out, m.log)
			}
			if p := why.Places[0]; p.Access != c.taken || p.Reads != c.reads || err != nil {
				t.Errorf("resolve: %v\n%s", err, out)
			}
		})
	}
}

// resolution is what resolve --json prints.
type resolution struct {
	Kind   string
	Steps  []struct{ Kind, Name string }
	Places []struct {
		Location string `json:"artifact_location"`
		Access   string
		Reads    string
		Error    string
		Ways     []struct{ Access, Found string }
	}
}

type fileInfo struct {
	Path  string `json:"path"`
	IsDir bool   `json:"is_dir"`
	Size  int64  `json:"file_size"`
}

// fetched is what mlflow.artifacts gives.
type fetched struct {
	Path  string
	List  []fileInfo
	Error string

	root  string // the destination
	below string // Path, in it
}

// fetched asks mlflow.artifacts for each row, with all credentials, once.
func (o *origin) fetched(t *testing.T) map[string]*fetched {
	t.Helper()
	env := theObjects(t).env()
	o.once.Do(func() { o.theirs, o.err = o.fetch(env) })
	if o.err != nil {
		t.Fatal(o.err)
	}
	return o.theirs
}

func (o *origin) fetch(env []string) (map[string]*fetched, error) {
	dir, err := os.MkdirTemp(work, "fetched-")
	if err != nil {
		return nil, err
	}
	in := map[string]map[string]string{}
	for _, r := range o.rows() {
		in[r.key] = r.kw
	}
	stdin, _ := json.Marshal(in)
	out, err := runPython(o.release, env, o.url(), string(stdin), "origins.py", "fetch", dir)
	if err != nil {
		return nil, err
	}
	got := map[string]*fetched{}
	if err := json.Unmarshal(out, &got); err != nil {
		return nil, err
	}
	for _, f := range got {
		if f.List == nil {
			f.List = []fileInfo{}
		}
		slices.SortFunc(f.List, func(a, b fileInfo) int { return cmp.Compare(a.Path, b.Path) })
		if rel, err := filepath.Rel(dir, f.Path); err == nil {
			first, below, _ := strings.Cut(rel, "/")
			f.root, f.below = filepath.Join(dir, first), below
		}
	}
	return got, nil
}

// command runs mlflowfs and gives what it prints.
func command(t *testing.T, env []string, args ...string) ([]byte, error) {
	t.Helper()
	c := mlflowfs(t, env, args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		err = &failed{c.ProcessState.ExitCode(), errs.String()}
	}
	return out, err
}

// failed is a command that failed.
type failed struct {
	code int
	said string
}

func (f *failed) Error() string { return f.said }

func differ(t *testing.T, what, ours, theirs string, flags ...string) {
	t.Helper()
	if out, err := output("diff", append(flags, "-r", ours, theirs)...); err != nil {
		t.Errorf("%s: %v\n%s", what, err, tail(string(out)))
	}
}
