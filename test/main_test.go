package test

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// work is the directory of everything that this run makes.
var work string

func TestMain(m *testing.M) {
	if spec := os.Getenv(asWorker); spec != "" {
		actAsWorker(spec)
		return
	}
	os.Exit(runAll(m))
}

func runAll(m *testing.M) (code int) {
	flag.Parse()
	if !given("test.parallel") { // most of these wait for others
		flag.Set("test.parallel", strconv.Itoa(beside*runtime.GOMAXPROCS(0)))
	}
	var err error
	if work, err = os.MkdirTemp("", "mlflowfs-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(work)
	os.Chmod(work, 0o755) // a created user mounts in it, too
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-interrupted
		endAll()
		os.RemoveAll(work)
		os.Exit(1)
	}()
	if !given("test.run") && !given("test.list") { // all of them
		prepare()
	}
	code = m.Run()
	shared.stop()
	onS3.stop()
	theOrigins.stop()
	objects.stop()
	pythons.stop()
	if left := leftovers(); left != "" {
		fmt.Fprintln(os.Stderr, "FAIL: left behind:", left)
		code = 1
	}
	return code
}

// prepare makes what the tests share beside each other, the slowest first: one after
// another, each by the first test that wants it, would leave cores idle, as most of
// it is the start of programs that have one thread. What fails, the tests tell that
// want it.
func prepare() {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	g.Go(func() error { theOrigins.made(); return nil })
	for _, kind := range storeKinds {
		g.Go(func() error { shared.of(kind); return nil })
	}
	g.Go(func() error { raced(); return nil })
	g.Go(func() error { shipped(); return nil })
	g.Wait()
}

// beside is how many tests run beside each other on each core, of those that
// call t.Parallel. The others run alone, before them: they measure time, READs
// or memory, or have the kernel drop its caches.
const beside = 3

func given(name string) (is bool) {
	flag.Visit(func(f *flag.Flag) { is = is || f.Name == name })
	return is
}

// soak is how long the long tests may take, all together; 0 in make test, where
// each is as short as its promise allows.
var soak = func() time.Duration {
	v := os.Getenv("MLFLOWFS_SOAK")
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 10*time.Minute {
		panic(fmt.Sprintf("MLFLOWFS_SOAK=%q: it must be a time of 10m or more", v))
	}
	return d
}()

// length is the time that a long test has: short in make test, and a part of
// the soak, of which all together have 1.
func length(short time.Duration, part float64) time.Duration {
	if soak == 0 {
		return short
	}
	return time.Duration(part * float64(soak))
}

// seedOf is the seed of a test's random numbers, which a failure names:
// MLFLOWFS_SEED, or 1.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	v := os.Getenv("MLFLOWFS_SEED")
	if v == "" {
		v = "1"
	}
	seed, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		t.Fatalf("MLFLOWFS_SEED=%q: %v", v, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it ran with seed %d", seed)
		}
	})
	return seed
}

// needsRoot fails a test that can't be run by another user.
func needsRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatalf("run this test as root: %s", why)
	}
}

// readFile is a file's text; empty where there is none.
func readFile(name string) string {
	b, _ := os.ReadFile(name)
	return string(b)
}

// figure notes what a test has measured: a soak's report holds it.
func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("figure: "+format, args...)
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
	for _, p := range processes() {
		if strings.Contains(p.args, work) {
			left = append(left, fmt.Sprint(p.pid, ": ", p.args))
		}
	}
	return strings.Join(left, "; ")
}

// process is one of the machine's.
type process struct {
	pid  int
	args string // with spaces between them
}

// processes are those of the machine now.
func processes() (all []process) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		all = append(all, process{pid, strings.ReplaceAll(readFile(dir+"/cmdline"), "\x00", " ")})
	}
	return all
}

// file reads one of the files of /proc about the process.
func (p process) file(name string) string { return readFile(fmt.Sprintf("/proc/%d/%s", p.pid, name)) }

// parent is the process that has started it, or has taken that one's place.
func (p process) parent() (pid int) {
	_, stat, _ := strings.Cut(p.file("stat"), ") ")
	if f := strings.Fields(stat); len(f) > 1 {
		pid, _ = strconv.Atoi(f[1])
	}
	return pid
}

// ours are the processes that have work in their command line, or as their home.
func ours() (pids []int) {
	for _, p := range processes() {
		if p.pid != os.Getpid() && (strings.Contains(p.args, work) || strings.Contains(p.file("environ"), "HOME="+work+"\x00")) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// endAll ends what an interrupted run has begun: its mounts, and its processes.
func endAll() {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for l := range strings.Lines(string(mounts)) {
		if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(f[1], work) {
			syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
	for end := time.Now().Add(10 * time.Second); len(ours()) > 0 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, pid := range ours() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// testenv is where setup.sh installed things.
func testenv() string {
	if dir := os.Getenv("MLFLOWFS_TESTENV"); dir != "" {
		return dir
	}
	dir, _ := filepath.Abs("../.testenv")
	return dir
}

func tail(s string) string {
	if len(s) > 4000 {
		s = "…" + s[len(s)-4000:]
	}
	return s
}
