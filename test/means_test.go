package test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// TestMountMeansWhatTheClientMeans fails when in some environment, for some store and
// URI, MLflow's client (3.17 or 2.22) and mlflowfs, its commands or a mount, differ in
// what they bring, where they put it, what they list, or what they refuse; or ask
// another server, or as somebody else; but for what the table in docs/uris.md tells.
func TestMountMeansWhatTheClientMeans(t *testing.T) {
	t.Parallel()
	page := readFile("../docs/uris.md")
	for _, d := range differences {
		if !strings.Contains(page, "| "+d.row+" |") {
			t.Errorf("docs/uris.md has no row %q", d.row)
		}
	}
	seed := uint64(seedOf(t))
	w := newWorld(t, seed)
	const least = 26 // situations
	only := os.Getenv("MLFLOWFS_CASE")
	cases := make(chan uint64)
	end := time.Now().Add(length(0, 0.1))
	go func() {
		defer close(cases)
		for _, n := range strings.FieldsFunc(only, func(r rune) bool { return r == ',' }) {
			if n, err := strconv.ParseUint(n, 10, 64); err == nil {
				cases <- n
			}
		}
		for n := uint64(0); only == "" && (n < least || time.Now().Before(end)); n++ {
			cases <- n
		}
	}()
	h := &held{seen: map[string]int{}}
	var wg sync.WaitGroup
	for range 3 {
		l := w.newLane(t)
		wg.Go(func() {
			for n := range cases {
				l.hold(h, l.draw(n))
			}
		})
	}
	wg.Wait()
	if only == "" {
		for _, d := range differences {
			if d.always && h.seen[d.row] == 0 {
				t.Errorf("docs/uris.md tells of a difference that is none: %s", d.row)
			}
		}
	}
	figure(t, "seed %d: %d environments, %d of them with a mount, and with their stores and URIs %d; %d answers of MLflow's client were compared, of which %d were errors; %d differ as docs/uris.md tells: %v",
		seed, h.situations, h.mounts, h.uris, h.compared, h.errors, h.told, h.seen)
}

// held is what was held against the client's answers.
type held struct {
	mu                                               sync.Mutex // guards what follows
	seen                                             map[string]int
	situations, mounts, uris, compared, errors, told int
}

// question is one answer of a client's to be held against ours.
type question struct {
	s            *situation
	uri          string
	client       release
	what         string // download, ls, mount or asked
	theirs, ours uriAnswer
	other        *uriAnswer // of MLflow's other client; nil where it can't read the store
	askedTheirs  []string
	askedOther   []string // by MLflow's other client
	askedOurs    []string
}

var otherRelease = map[release]release{"mlflow2": "mlflow3", "mlflow3": "mlflow2"}

// answers are those of mlflowfs, whose release is "", and of MLflow's clients.
type answers struct {
	of    map[release][]uriAnswer // for each URI
	asked map[release][]string    // whom, as whom
}

// ask asks in a situation.
func (l *lane) ask(s *situation, env []string) (a answers, err error) {
	a = answers{map[release][]uriAnswer{"": make([]uriAnswer, len(s.URIs))}, map[release][]string{}}
	if err := errors.Join(os.MkdirAll(s.cwd(), 0o755), s.Write()); err != nil {
		return a, err
	}
	l.mu.Lock()
	l.keys = s.Keys
	l.mu.Unlock()
	l.recorder.take()
	threads := 4
	if s.root != "" {
		threads = 1
	}
	var all errgroup.Group
	all.SetLimit(threads)
	for i, uri := range s.URIs {
		all.Go(func() error {
			a.of[""][i] = weSay(l.t, env, s.cwd(), filepath.Join(s.home, "ours", strconv.Itoa(i)), uri)
			return nil
		})
	}
	all.Wait()
	a.asked[""] = l.recorder.take()
	theirs := maps.Clone(s.Env)
	theirs["MLFLOW_TRACKING_URI"] = cmp.Or(s.asIf, theirs["MLFLOW_TRACKING_URI"])
	for _, r := range s.clients {
		if a.of[r], err = l.clients[r].ask(theirs, s.cwd(), filepath.Join(s.home, string(r)), s.URIs, threads); err != nil {
			return a, err
		}
		a.asked[r] = l.recorder.take()
	}
	return a, nil
}

// hold asks in a situation, and reports what differs.
func (l *lane) hold(h *held, s *situation) {
	defer os.RemoveAll(s.home)
	env := []string{allowLoopback + ",localhost", "MLFLOWFS_CACHE_DIR=" + filepath.Join(s.home, "cache")}
	for k, v := range s.Env {
		env = append(env, k+"="+v)
	}
	a, err := l.ask(s, env)
	if err != nil {
		l.t.Errorf("%s: %v", s, err)
		return
	}
	m := l.mount(s, env, a.of[""])
	if m != nil {
		defer m.stop()
	}
	for _, r := range s.clients {
		for i, uri := range s.URIs {
			q := question{s: s, uri: uri, client: r, theirs: a.of[r][i], ours: a.of[""][i]}
			if other := a.of[otherRelease[r]]; other != nil {
				q.other = &other[i]
			}
			for _, what := range []string{"download", "ls", "mount"} {
				if q.what = what; what != "mount" || m != nil {
					l.report(h, q, m)
				}
			}
		}
		l.report(h, question{s: s, client: r, what: "asked", askedTheirs: a.asked[r], askedOther: a.asked[otherRelease[r]], askedOurs: a.asked[""]}, nil)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.situations++
	h.uris += len(s.URIs)
	if m != nil {
		h.mounts++
	}
}

// cwd is the working directory of whoever asks.
func (s *situation) cwd() string { return filepath.Join(s.home, "cwd") }

// mount mounts the situation's store, where it is one of those that are mounted, and one
// of the commands had an answer of the server.
func (l *lane) mount(s *situation, env []string, answers []uriAnswer) *mount {
	served := false
	for i, a := range answers {
		served = served || a.Download.Error == "" && (strings.HasPrefix(s.URIs[i], "runs:") || strings.HasPrefix(s.URIs[i], "models:"))
	}
	if !s.Mount || !served {
		return nil
	}
	point := filepath.Join(s.home, "mnt")
	if err := os.Mkdir(point, 0o755); err != nil {
		l.t.Error(err)
		return nil
	}
	args := []string{"mount", point}
	if s.root != "" { // a bucket, or a container
		args = append(args, "--mount-uris", strings.Join(strings.SplitAfterN(s.root, "/", 4)[:3], ""))
	}
	if s.old == "" {
		c := mlflowfs(l.t, env, args...)
		c.Dir = s.cwd()
		return launch(l.t, point, c)
	}
	file, upgraded := filepath.Join(s.home, "mlflow.db"), strings.TrimPrefix(s.Env["MLFLOW_TRACKING_URI"], "sqlite:///")
	if out, err := output("cp", s.old, file); err != nil {
		l.t.Error(string(out), err)
	}
	m := launch(l.t, point, mlflowfs(l.t, append(env, "MLFLOW_TRACKING_URI=sqlite:///"+file), args...))
	if out, err := output("ls", m.path("experiments")); err != nil {
		l.t.Error(string(out), err)
	}
	if out, err := output("sh", "-c", "cp $0 $1.new && mv $1.new $1", upgraded, file); err != nil {
		l.t.Error(string(out), err)
	}
	return m
}

// report counts an answer, and fails the test where ours differs and no row tells it.
func (l *lane) report(h *held, q question, m *mount) {
	differs := q.differs(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.compared++
	if q.theirs.Download.Error != "" && q.what == "download" || q.theirs.List.Error != "" && q.what == "ls" {
		h.errors++
	}
	if differs == "" {
		return
	}
	if q.isTold(h) {
		return
	}
	if q.what == "asked" && q.client == "mlflow2" && q.askedOther != nil { // as MLflow 3, of which it is told
		as3 := q
		as3.client, as3.askedTheirs, as3.askedOther = "mlflow3", q.askedOther, q.askedTheirs
		if as3.isTold(h) {
			return
		}
	}
	theirs, _ := json.Marshal(q.theirs)
	ours, _ := json.Marshal(q.ours)
	l.t.Errorf("seed %d, case %d: %s of %q by %s: %s\n%s\nMLflow: %s %q\nours:   %s %q\nagain: MLFLOWFS_SEED=%d MLFLOWFS_CASE=%d go run ./test/run -- -count=1 -run '^TestMountMeansWhatTheClientMeans$' ./test",
		q.s.Seed, q.s.N, q.what, q.uri, q.client, differs, q.s, theirs, q.askedTheirs, ours, q.askedOurs, q.s.Seed, q.s.N)
}

// isTold tells whether docs/uris.md tells of the difference, and counts it. h.mu is held.
func (q *question) isTold(h *held) bool {
	for _, d := range differences {
		if d.met(q) {
			h.seen[d.row]++
			h.told++
			return true
		}
	}
	return false
}

func (s *situation) String() string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// differs says how ours differs from the client's answer; empty where it does not.
func (q *question) differs(m *mount) string {
	switch q.what {
	case "download":
		a, b := q.theirs.Download, q.ours.Download
		switch {
		case (a.Error != "") != (b.Error != ""):
			return "one is an error"
		case a.Error != "":
			return ""
		case a.Returned != b.Returned:
			return fmt.Sprintf("it lies at %q, and not at %q", b.Returned, a.Returned)
		}
		return gocmp.Diff(a.Tree, b.Tree)
	case "ls":
		a, b := q.theirs.List, q.ours.List
		if (a.Error != "") != (b.Error != "") {
			return "one is an error"
		}
		return gocmp.Diff(slices.Concat(a.List, [][3]any{}), slices.Concat(b.List, [][3]any{}))
	case "mount":
		return holdMount(m, q.uri, q.theirs)
	}
	return gocmp.Diff(q.askedTheirs, q.askedOurs)
}
