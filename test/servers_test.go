package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/dbserver"
)

// server is a running MLflow tracking server.
type server struct {
	release release
	dir     string // mlflow.db and artifacts/
	port    int
	dest    string   // artifacts destination; s.artifacts() where it is empty
	wrap    []string // a command before the server's own
	args    []string
	env     []string
	cmd     *exec.Cmd
	log     string
}

func (s *server) url() string { return fmt.Sprintf("http://127.0.0.1:%d", s.port) }

// artifacts is the server's artifact directory.
func (s *server) artifacts() string { return filepath.Join(s.dir, "artifacts") }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// newServer starts a server of its own port and directory, and waits until it
// is healthy.
func newServer(r release, env []string, args ...string) (*server, error) {
	return newServerOn(r, "", env, args...)
}

// newServerOn is newServer with an artifacts destination of its own.
func newServerOn(r release, dest string, env []string, args ...string) (*server, error) {
	return newServerIn(nil, r, dest, env, args...)
}

// newServerIn is newServerOn with a command that starts it.
func newServerIn(wrap []string, r release, dest string, env []string, args ...string) (*server, error) {
	dir, err := os.MkdirTemp(work, string(r)+"-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{release: r, dir: dir, port: port, dest: dest, wrap: wrap, args: args, env: env, log: filepath.Join(dir, "log")}
	return s, s.start()
}

func (s *server) start() error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	dest := s.dest
	if dest == "" {
		dest = s.artifacts()
	}
	words := append(s.wrap, append([]string{s.release.bin("mlflow"), "server",
		"--backend-store-uri", "sqlite:///" + filepath.Join(s.dir, "mlflow.db"), "--artifacts-destination", dest,
		"--serve-artifacts", "--host", "127.0.0.1", "--port", fmt.Sprint(s.port), "--workers", "1"}, s.args...)...)
	s.cmd = exec.Command(words[0], words[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, log, log
	s.cmd.Env = append(append(pythonEnv(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "PATH="+filepath.Dir(s.release.bin("x"))+":"+os.Getenv("PATH")), s.env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // a busy machine takes some
		resp, err := http.Get(s.url() + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	s.stop()
	b, _ := os.ReadFile(s.log)
	return fmt.Errorf("the %s server does not come up:\n%s", s.release, tail(string(b)))
}

// stop ends the server and all its workers.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	endGroup(s.cmd)
	s.cmd = nil
}

// endGroup ends a command that leads a process group, and the group.
func endGroup(c *exec.Cmd) {
	syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		c.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
	}
	syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	<-done
	for syscall.Kill(-c.Process.Pid, 0) == nil { // workers that init has not reaped yet
		time.Sleep(10 * time.Millisecond)
	}
}

// startServer gives a server for one test.
func startServer(t *testing.T, r release, env []string, args ...string) *server {
	t.Helper()
	s, err := newServer(r, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

// seed is what seed.py made.
type seed struct {
	file string // its JSON

	V3                                             bool
	Wide, Second, Mangled, Empty, Deleted, Running string
	Runs                                           [][2]string
	Models                                         []string
	Logged                                         map[string][]byte
	Spaces                                         map[string]string // the run of each workspace: see workspaces.py
}

func readSeed(out string) (*seed, error) {
	f, err := os.CreateTemp(work, "seed-*.json")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &seed{file: f.Name()}
	_, err = f.WriteString(out)
	return s, errors.Join(err, json.Unmarshal([]byte(out), s))
}

// seeded is a store that seed.py has filled.
type seeded struct {
	uri      string
	release  release
	server   *server          // nil for a store that is read without one
	database *dbserver.Server // nil for another store
	dir      string           // where it was filled: artifacts go to mlruns below it
	*seed
}

// sharedStores are the seeded stores that many tests read, and add to what can be
// read: TestDoctorSaysWhatToMend wants a store without fault. Each is made when
// the first test wants it.
type sharedStores struct {
	mu     sync.Mutex // guards stores
	stores map[string]*sharedStore
}

type sharedStore struct {
	once sync.Once
	s    *seeded
	err  error
}

var shared = &sharedStores{stores: map[string]*sharedStore{}}

// storeKinds are the kinds of tracking store that the mount reads.
var storeKinds = []string{"server 3.17", "server 2.22", "sqlite 3.17", "sqlite 2.22", "files 3.17", "files 2.22", "postgresql 3.17", "mysql 3.17"}

// get gives the shared store of a kind.
func (x *sharedStores) get(t *testing.T, kind string) *seeded {
	t.Helper()
	s, err := x.of(kind)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// of is get where there is no test yet.
func (x *sharedStores) of(kind string) (*seeded, error) {
	x.mu.Lock()
	st := x.stores[kind]
	if st == nil {
		st = &sharedStore{}
		x.stores[kind] = st
	}
	x.mu.Unlock()
	st.once.Do(func() { st.s, st.err = makeSeeded(kind) })
	return st.s, st.err
}

func (x *sharedStores) stop() {
	for _, st := range x.stores {
		if st.s != nil && st.s.server != nil {
			st.s.server.stop()
		}
		if st.s != nil && st.s.database != nil {
			st.s.database.Close()
		}
	}
}

func makeSeeded(kind string) (*seeded, error) {
	s := &seeded{release: "mlflow3"}
	switch _, version, _ := strings.Cut(kind, " "); version {
	case "2.22":
		s.release = "mlflow2"
	case "1.30": // of a soak alone
		s.release = "mlflow1"
	}
	dir, err := os.MkdirTemp(work, "store-")
	if err != nil {
		return nil, err
	}
	s.dir = dir
	words, flags := []string{"seed.py"}, []string(nil)
	if kind == "server 3.17 with workspaces" {
		words, flags = []string{"workspaces.py", "default", "team-a"}, []string{"--enable-workspaces"}
	}
	switch k, _, _ := strings.Cut(kind, " "); k {
	case "server":
		if s.server, err = newServer(s.release, nil, flags...); err != nil {
			return nil, err
		}
		s.uri = s.server.url()
	case "sqlite":
		s.uri = "sqlite:///" + dir + "/mlflow.db"
	case "postgresql", "mysql":
		if s.database, err = dbserver.New(dbserver.Kind(k)); err != nil {
			return nil, err
		}
		s.uri = s.database.URI(dbserver.Writer, "mlflow")
	case "files":
		s.uri = filepath.Join(dir, "mlruns")
		if err := os.Mkdir(s.uri, 0o755); err != nil {
			return nil, err
		}
	}
	if words[0], err = filepath.Abs(words[0]); err != nil {
		return nil, err
	}
	// A local store's artifacts go to ./mlruns.
	out, err := s.release.run(dir, append(pythonEnv(), "MLFLOW_TRACKING_URI="+s.uri), "", words...)
	if err != nil {
		return nil, fmt.Errorf("seeding %s: %w", kind, err)
	}
	s.seed, err = readSeed(lastLine(out))
	if err != nil {
		return nil, fmt.Errorf("seeding %s: %w\n%s", kind, err, tail(out))
	}
	return s, nil
}

// api asks a tracking server, as user where one is named, and gives what it
// answers; path begins with /api/, or with a method and a space where that is not
// POST.
func api(t *testing.T, server, path string, in map[string]any, userPassword ...string) map[string]any {
	t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	method := http.MethodPost
	if m, p, ok := strings.Cut(path, " "); ok {
		method, path = m, p
	}
	req, err := http.NewRequest(method, server+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if len(userPassword) == 2 {
		req.SetBasicAuth(userPassword[0], userPassword[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := map[string]any{}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(path, resp.Status, out, err)
	}
	return out
}

// newExperiment and newRun make one and give its id.
func newExperiment(t *testing.T, server, name, location string, userPassword ...string) string {
	t.Helper()
	in := map[string]any{"name": name}
	if location != "" {
		in["artifact_location"] = location
	}
	return api(t, server, "/api/2.0/mlflow/experiments/create", in, userPassword...)["experiment_id"].(string)
}

func newRun(t *testing.T, server, experiment string, userPassword ...string) string {
	t.Helper()
	in := map[string]any{"experiment_id": experiment, "start_time": time.Now().UnixMilli()}
	run := api(t, server, "/api/2.0/mlflow/runs/create", in, userPassword...)["run"].(map[string]any)
	return run["info"].(map[string]any)["run_id"].(string)
}

// finished ends a run, so that what is in it is final.
func finished(t *testing.T, server, run string) string {
	t.Helper()
	api(t, server, "/api/2.0/mlflow/runs/update", map[string]any{"run_id": run, "status": "FINISHED", "end_time": time.Now().UnixMilli()})
	return run
}
