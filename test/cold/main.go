// Cold measures the CPU time of two builds of mlflowfs for reading a file cold
// through a mount, with the disk cache on, in turns.
//
//	cold [-rounds 5] [-size 1024] [-dir DIR] [-strace STRACE] NAME=BINARY NAME=BINARY
//
// The origin is its own: a tracking server that has one run with one file. It
// needs root and /dev/fuse, and nothing else.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const run = "0123456789abcdef0123456789abcdef"

var noise = func() []byte {
	b := make([]byte, 8<<20-4093)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

type endless struct{}

func (endless) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		n += copy(p[n:], noise[(off+int64(n))%int64(len(noise)):])
	}
	return n, nil
}

func origin(size int64) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	answer := func(w http.ResponseWriter, code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(v)
	}
	type m = map[string]any
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const artifacts = "/api/2.0/mlflow-artifacts/artifacts"
		if os.Getenv("COLD_DEBUG") != "" {
			fmt.Fprintln(os.Stderr, r.Method, r.URL)
		}
		switch p := r.URL.Path; {
		case p == "/api/2.0/mlflow/experiments/search":
			answer(w, 200, m{"experiments": []m{{"experiment_id": "0", "name": "Default", "artifact_location": "mlflow-artifacts:/0", "lifecycle_stage": "active"}}})
		case p == "/api/2.0/mlflow/runs/get":
			answer(w, 200, m{"run": m{"info": m{"run_id": run, "run_uuid": run, "run_name": "r", "experiment_id": "0", "status": "FINISHED",
				"start_time": 1700000000000, "end_time": 1700000001000, "lifecycle_stage": "active", "artifact_uri": "mlflow-artifacts:/0/" + run + "/artifacts"}, "data": m{}}})
		case p == "/api/2.0/mlflow/logged-models/search":
			answer(w, 200, m{})
		case p == artifacts:
			answer(w, 200, m{"files": []m{{"path": "big.bin", "is_dir": false, "file_size": size}}})
		case strings.HasPrefix(p, artifacts+"/"):
			w.Header().Set("ETag", `"v"`)
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(endless{}, 0, size))
		default:
			answer(w, 404, m{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such thing"})
		}
	}))
	return "http://" + l.Addr().String(), nil
}

// cpu is the user and system time of a process, in seconds.
// daemonOf is the process that answers the mount that a process holds; itself where it has
// no child.
func daemonOf(pid int) int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for child := range strings.FieldsSeq(string(children)) {
			pid, _ = strconv.Atoi(child)
		}
	}
	return pid
}

func cpu(pid int) (user, sys float64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	u, _ := strconv.ParseFloat(f[11], 64)
	s, _ := strconv.ParseFloat(f[12], 64)
	return u / 100, s / 100
}

type result struct {
	user, sys, wall float64
	rss             int
	calls           map[string]int
}

func (r result) cpu() float64 { return r.user + r.sys }

func measure(bin, uri, dir string, size int64, strace string) (x result, err error) {
	point, err := os.MkdirTemp(dir, "mnt-")
	if err != nil {
		return x, err
	}
	defer os.Remove(point)
	cached, err := os.MkdirTemp(dir, "cache-")
	if err != nil {
		return x, err
	}
	defer os.RemoveAll(cached)
	log, err := os.CreateTemp(dir, "log-")
	if err != nil {
		return x, err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	c := exec.Command(bin, "mount", "--tracking-uri", uri, point)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "MLFLOWFS_CACHE_DIR=" + cached, "AWS_EC2_METADATA_DISABLED=true"}
	c.Stderr = log
	if err := c.Start(); err != nil {
		return x, err
	}
	said := func() string { b, _ := os.ReadFile(log.Name()); return string(b) }
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	defer func() {
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			c.Process.Kill()
			<-ended
		}
		syscall.Unmount(point, syscall.MNT_DETACH)
	}()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(said(), "Ctrl-C unmounts"); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			return x, fmt.Errorf("the mount ended: %v\n%s", err, said())
		default:
		}
		if time.Now().After(end) {
			return x, errors.New("the mount is not ready: " + said())
		}
	}
	file := filepath.Join(point, "runs", run, "big.bin")
	if out, err := exec.Command("ls", "-l", file).CombinedOutput(); err != nil {
		return x, fmt.Errorf("%s\n%s", out, said())
	}
	time.Sleep(300 * time.Millisecond)
	daemon := daemonOf(c.Process.Pid)
	var trace *exec.Cmd
	var table bytes.Buffer
	if strace != "" {
		trace = exec.Command(strace, "-f", "-c", "-U", "calls,name", "-p", strconv.Itoa(daemon))
		trace.Stderr = &table
		if err := trace.Start(); err != nil {
			return x, err
		}
		time.Sleep(500 * time.Millisecond)
	}
	u0, s0 := cpu(daemon)
	begin := time.Now()
	self, _ := os.Executable()
	out, err := exec.Command(self, "read", file).CombinedOutput()
	x.wall = time.Since(begin).Seconds()
	if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(size) {
		return x, fmt.Errorf("reading: %s, %v\n%s", out, err, said())
	}
	u1, s1 := cpu(daemon)
	for since := time.Now(); time.Since(since) < 500*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		if u, s := cpu(daemon); u+s > u1+s1 {
			u1, s1, since = u, s, time.Now()
		}
	}
	x.user, x.sys = u1-u0, s1-s0
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", daemon))
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			x.rss, _ = strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	if trace != nil {
		trace.Process.Signal(os.Interrupt)
		trace.Wait()
		x.calls = map[string]int{}
		for l := range strings.Lines(table.String()) {
			if f := strings.Fields(l); len(f) == 2 {
				if n, err := strconv.Atoi(f[0]); err == nil {
					x.calls[f[1]] = n
				}
			}
		}
	}
	var kept int64
	filepath.WalkDir(cached, func(p string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			var st syscall.Stat_t
			if syscall.Stat(p, &st) == nil {
				kept += st.Blocks * 512
			}
		}
		return nil
	})
	if kept < size {
		return x, fmt.Errorf("only %d of %d bytes are kept on disk", kept, size)
	}
	return x, nil
}

func readAll(path string) {
	f, err := os.Open(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	n, buf := 0, make([]byte, 1<<20)
	for {
		k, err := f.Read(buf)
		n += k
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fmt.Println(n)
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "read" {
		readAll(os.Args[2])
		return
	}
	rounds := flag.Int("rounds", 5, "of each")
	mib := flag.Int64("size", 1024, "MiB")
	dir := flag.String("dir", os.TempDir(), "where the caches are")
	strace := flag.String("strace", "", "strace(1), to count system calls in one more round")
	budget := flag.Duration("budget", 150*time.Second, "no new round begins after this")
	flag.Parse()
	began := time.Now()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "cold:", err)
		os.Exit(1)
	}
	if os.Geteuid() != 0 {
		fail(errors.New("run it as root: it mounts, and drops the page cache"))
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		fmt.Fprintf(os.Stderr, "cold: there is no FUSE here, nothing was measured: %v\n", err)
		os.Exit(3)
	} else {
		f.Close()
	}
	size := *mib << 20
	uri, err := origin(size)
	if err != nil {
		fail(err)
	}
	var names []string
	bins := map[string]string{}
	for _, a := range flag.Args() {
		name, bin, _ := strings.Cut(a, "=")
		names = append(names, name)
		bins[name] = bin
	}
	got := map[string][]result{}
	one := func(name, strace string) result {
		syscall.Sync()
		os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0)
		x, err := measure(bins[name], uri, *dir, size, strace)
		if err != nil {
			fail(fmt.Errorf("%s: %w", name, err))
		}
		return x
	}
	for r := range *rounds {
		if time.Since(began) > *budget {
			fmt.Printf("no time for more than %d rounds\n", r)
			break
		}
		order := slices.Clone(names)
		if r%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			x := one(name, "")
			got[name] = append(got[name], x)
			fmt.Printf("round %d: %-8s user %.2f s, sys %.2f s, both %.2f s; read in %.2f s; %d MiB resident\n", r+1, name, x.user, x.sys, x.cpu(), x.wall, x.rss>>10)
		}
	}
	middle := func(of []result, f func(result) float64) (m, least, most float64) {
		var v []float64
		for _, x := range of {
			v = append(v, f(x))
		}
		slices.Sort(v)
		return v[len(v)/2], v[0], v[len(v)-1]
	}
	var medians, leasts []float64
	for _, name := range names {
		m, least, most := middle(got[name], result.cpu)
		w, _, _ := middle(got[name], func(x result) float64 { return x.wall })
		medians = append(medians, m)
		leasts = append(leasts, least)
		fmt.Printf("%-8s median %.2f s of CPU for %d MiB (%.2f to %.2f), read in %.2f s\n", name, m, *mib, least, most, w)
	}
	if len(medians) == 2 {
		fmt.Printf("ratio %s/%s of CPU: %.3f by medians, %.3f by the least of each\n", names[1], names[0], medians[1]/medians[0], leasts[1]/leasts[0])
	}
	if *strace != "" {
		for _, name := range names {
			x := one(name, *strace)
			fmt.Printf("%-8s pwrite64 %d, pwritev %d, writev %d, read %d, futex %d, fstat %d\n", name, x.calls["pwrite64"], x.calls["pwritev"]+x.calls["pwritev2"], x.calls["writev"], x.calls["read"], x.calls["futex"], x.calls["fstat"])
		}
	}
}
