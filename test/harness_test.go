package test

import (
	"bytes"
	"context"
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
)

// work is the directory of everything that this run makes.
var work string

func TestMain(m *testing.M) {
	if spec := os.Getenv(asWorker); spec != "" {
		actAsWorker(spec)
		return
	}
	var err error
	if work, err = os.MkdirTemp("", "mlflowfs-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Chmod(work, 0o755) // a created user mounts in it, too
	code := m.Run()
	shared.stop()
	objects.stop()
	if left := leftovers(); left != "" {
		fmt.Fprintln(os.Stderr, "FAIL: left behind:", left)
		code = 1
	}
	os.RemoveAll(work)
	os.Exit(code)
}

// leftovers names mounts below work, and processes that have it in their
// command line.
func leftovers() string {
	var left []string
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for l := range strings.Lines(string(mounts)) {
		if strings.Contains(l, work) {
			left = append(left, strings.TrimSpace(l))
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		cmd, err := os.ReadFile(p)
		if err == nil && bytes.Contains(cmd, []byte(work)) {
			left = append(left, p+": "+strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	return strings.Join(left, "; ")
}

// testenv is where setup.sh installed things.
func testenv() string {
	if dir := os.Getenv("MLFLOWFS_TESTENV"); dir != "" {
		return dir
	}
	dir, _ := filepath.Abs("../.testenv")
	return dir
}

// release is an MLflow release: mlflow3 or mlflow2.
type release string

func (r release) bin(name string) string { return filepath.Join(testenv(), string(r), "bin", name) }

// python runs one of the scripts here with the release's client.
func (r release) python(t *testing.T, env []string, stdin string, script string, args ...string) string {
	t.Helper()
	path, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(r.bin("python"), append([]string{path}, args...)...)
	c.Dir = t.TempDir()
	c.Env = append(pythonEnv(), env...)
	c.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("%s %s %v: %v\n%s%s", r, script, args, err, tail(out.String()), tail(errs.String()))
	}
	return out.String()
}

// noMetadata keeps AWS's SDKs from asking for credentials at an address that
// only a cloud's machines have.
const noMetadata = "AWS_EC2_METADATA_DISABLED=true"

func pythonEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + work, "LANG=C.UTF-8", "PYTHONWARNINGS=ignore", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=2",
		"MLFLOW_ALLOW_FILE_STORE=true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false", "MLFLOW_DISABLE_TELEMETRY=true", "GIT_PYTHON_REFRESH=quiet",
		noMetadata,
	}
}

func tail(s string) string {
	if len(s) > 4000 {
		s = "…" + s[len(s)-4000:]
	}
	return s
}

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
		"--host", "127.0.0.1", "--port", fmt.Sprint(s.port), "--workers", "1"}, s.args...)...)
	s.cmd = exec.Command(words[0], words[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, log, log
	s.cmd.Env = append(append(pythonEnv(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "PATH="+filepath.Dir(s.release.bin("x"))+":"+os.Getenv("PATH")), s.env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
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
	uri     string
	release release
	server  *server // nil for a local store
	*seed
}

// sharedStores are the seeded stores that many tests read; each is made when
// the first test wants it.
type sharedStores struct {
	mu      sync.Mutex // guards what follows
	stores  map[string]*sharedStore
	servers []*server // others, to be stopped with them
}

type sharedStore struct {
	once sync.Once
	s    *seeded
	err  error
}

var shared = &sharedStores{stores: map[string]*sharedStore{}}

// storeKinds are the kinds of tracking store that the mount reads.
var storeKinds = []string{"server 3.17", "server 2.22", "sqlite 3.17", "sqlite 2.22", "files 3.17", "files 2.22"}

// get gives the shared store of a kind.
func (x *sharedStores) get(t *testing.T, kind string) *seeded {
	t.Helper()
	x.mu.Lock()
	st := x.stores[kind]
	if st == nil {
		st = &sharedStore{}
		x.stores[kind] = st
	}
	x.mu.Unlock()
	st.once.Do(func() { st.s, st.err = makeSeeded(t, kind) })
	if st.err != nil {
		t.Fatal(st.err)
	}
	if st.s == nil {
		t.Fatal("the shared store could not be made; see the test that tried first")
	}
	return st.s
}

func (x *sharedStores) stop() {
	for _, s := range x.servers {
		s.stop()
	}
	for _, st := range x.stores {
		if st.s != nil && st.s.server != nil {
			st.s.server.stop()
		}
	}
}

func makeSeeded(t *testing.T, kind string) (*seeded, error) {
	s := &seeded{release: "mlflow3"}
	if strings.HasSuffix(kind, "2.22") {
		s.release = "mlflow2"
	}
	dir, err := os.MkdirTemp(work, "store-")
	if err != nil {
		return nil, err
	}
	switch k, _, _ := strings.Cut(kind, " "); k {
	case "server":
		if s.server, err = newServer(s.release, nil); err != nil {
			return nil, err
		}
		s.uri = s.server.url()
	case "sqlite":
		s.uri = "sqlite:///" + dir + "/mlflow.db"
	case "files":
		s.uri = filepath.Join(dir, "mlruns")
		if err := os.Mkdir(s.uri, 0o755); err != nil {
			return nil, err
		}
	}
	script, err := filepath.Abs("seed.py")
	if err != nil {
		return nil, err
	}
	c := exec.Command(s.release.bin("python"), script)
	c.Dir = dir // a local store's artifacts go to ./mlruns
	c.Env = append(pythonEnv(), "MLFLOW_TRACKING_URI="+s.uri)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("seeding %s: %w\n%s", kind, err, tail(errs.String()))
	}
	// What MLflow prints around runs stands before the JSON.
	s.seed, err = readSeed(string(out[bytes.LastIndexByte(bytes.TrimRight(out, "\n"), '\n')+1:]))
	if err != nil {
		return nil, fmt.Errorf("seeding %s: %w\n%s", kind, err, tail(string(out)))
	}
	return s, nil
}

// binary is mlflowfs, built with the race detector.
var binary = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(work, "mlflowfs")
	out, err := exec.Command("go", "build", "-race", "-o", bin, "../cmd/mlflowfs").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

// shipped is mlflowfs as it is given to people.
var shipped = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(work, "shipped")
	c := exec.Command("go", "build", "-o", bin, "../cmd/mlflowfs")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

// mlflowfs is a command of ours, in an environment without anything of
// MLflow's.
func mlflowfs(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	return built(t, binary, env, args...)
}

func built(t *testing.T, build func() (string, error), env []string, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bin, args...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + work, "GORACE=halt_on_error=1 atexit_sleep_ms=20", noMetadata}, env...)
	return c
}

// mount is a running mount.
type mount struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	log *logBuffer

	ended  chan struct{} // closed when the daemon has exited
	err    error         // of its exit
	killed bool
}

// logBuffer is what a daemon has written so far.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fast makes a mount give up early where a test waits for that.
var fast = []string{"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR=0.05", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=4"}

// mountAt mounts a tracking URI and returns when the mount is ready. The mount
// goes with the test, and must go without a word of panic or race.
func mountAt(t *testing.T, uri string, env []string, flags ...string) *mount {
	t.Helper()
	return mountWith(t, binary, uri, env, flags...)
}

// mountShipped is mountAt with the build that people have, which has no race
// detector in it: what it takes is what they see.
func mountShipped(t *testing.T, uri string, env []string, flags ...string) *mount {
	t.Helper()
	return mountWith(t, shipped, uri, env, flags...)
}

func mountWith(t *testing.T, build func() (string, error), uri string, env []string, flags ...string) *mount {
	t.Helper()
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"mount"}, flags...)
	if uri != "" {
		args = append(args, "--tracking-uri", uri)
	}
	// A cache of its own: nothing comes from another test's reads.
	cached, err := os.MkdirTemp(work, "cache-")
	if err != nil {
		t.Fatal(err)
	}
	env = append([]string{"MLFLOWFS_CACHE_DIR=" + cached}, env...)
	m := launch(t, dir, built(t, build, env, append(args, dir)...))
	t.Cleanup(func() {
		m.stop()
		os.RemoveAll(cached)
	})
	return m
}

// launch starts a command that mounts at dir, and returns when it says that
// the mount is ready.
func launch(t *testing.T, dir string, cmd *exec.Cmd) *mount {
	t.Helper()
	m := &mount{t: t, dir: dir, cmd: cmd, log: &logBuffer{}, ended: make(chan struct{})}
	cmd.Stderr = m.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		m.err = cmd.Wait()
		close(m.ended)
	}()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) { // an emulated machine takes half of one
		if strings.Contains(m.log.String(), "Ctrl-C unmounts") {
			return m
		}
		select {
		case <-m.ended:
			t.Fatalf("the mount ended: %v\n%s", m.err, m.log)
		default:
		}
		if time.Now().After(end) {
			cmd.Process.Kill()
			syscall.Unmount(dir, syscall.MNT_DETACH)
			t.Fatalf("the mount is not ready:\n%s", m.log)
		}
	}
}

// stop unmounts by SIGTERM and looks at what the daemon said.
func (m *mount) stop() {
	m.t.Helper()
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(20 * time.Second):
		m.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		select {
		case <-m.ended:
		case <-time.After(10 * time.Second):
			m.cmd.Process.Kill()
			<-m.ended
		}
		m.t.Errorf("the daemon does not end:\n%s", m.log)
	}
	if m.err != nil && !m.killed {
		m.t.Errorf("the daemon ended with %v:\n%s", m.err, m.log)
	}
	for _, bad := range []string{"panic", "DATA RACE", "goroutine "} {
		if strings.Contains(m.log.String(), bad) {
			m.t.Errorf("the daemon's log:\n%s", m.log)
			break
		}
	}
	syscall.Unmount(m.dir, syscall.MNT_DETACH) // what a killed daemon left
	if err := os.Remove(m.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Errorf("the mount point: %v", err)
	}
}

// path joins a path to the mount.
func (m *mount) path(parts ...string) string {
	return filepath.Join(append([]string{m.dir}, parts...)...)
}

// read reads a file in a process of its own: a test must not wait on its own
// threads for a mount.
func read(path string) ([]byte, error) { return output("cat", path) }

// output runs a command and gives its standard output; what it said on
// standard error is in the error.
func output(name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(errs.String()))
	}
	return out, err
}

func lines(b []byte) []string {
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// waitFor waits until cond is true.
func waitFor(t *testing.T, what string, limit time.Duration, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", limit, what)
		}
	}
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
