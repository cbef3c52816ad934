package fusefs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// ledger is a tracking server with one experiment of n runs, each with 20 params, in
// pages of 200 as MLflow's are asked for.
type ledger struct {
	meta.Store // nil: nothing else is asked for
	n          int
	bare       int          // how many runs, the newest, have no params yet
	fails      atomic.Int64 // the first run of the page that can't be had; 0: none
	more       atomic.Int64 // runs that have come to the n
	asked      atomic.Int64 // searches for runs with their data
	listed     atomic.Int64 // and without
}

const ledgerPage = 200

func (l *ledger) SearchExperiments(context.Context, string, string) (meta.Page[meta.Experiment], error) {
	return meta.Page[meta.Experiment]{Items: []meta.Experiment{{ID: "1", Name: "big"}}}, nil
}

func (l *ledger) SearchRuns(_ context.Context, which meta.RunQuery, token string) (meta.Page[meta.Run], error) {
	if which.JSON {
		l.asked.Add(1)
	} else {
		l.listed.Add(1)
	}
	return l.page(token, which.JSON)
}

func (l *ledger) page(token string, data bool) (p meta.Page[meta.Run], err error) {
	first, _ := strconv.Atoi(token)
	n := l.n + int(l.more.Load())
	if f := int(l.fails.Load()); f > 0 && first >= f {
		return p, fmt.Errorf("the server has gone at run %d", first)
	}
	for i := first; i < min(first+ledgerPage, n); i++ {
		r := meta.Run{
			ID: fmt.Sprintf("%032x", i), Name: fmt.Sprintf("run-%06d", i), ExperimentID: "1", Status: "FINISHED",
			Start: time.UnixMilli(int64(2e12) - int64(i)*1000), ArtifactURI: fmt.Sprintf("mlflow-artifacts:/1/%032x/artifacts", i),
		}
		if data {
			var d struct{ Data meta.Data }
			for k := 0; i >= l.bare && k < 20; k++ {
				d.Data.Params = append(d.Data.Params, meta.Pair{Key: fmt.Sprintf("param_%02d", k), Value: fmt.Sprint(i * k)})
			}
			if i >= ledgerPage && i%1000 == 0 {
				d.Data.Params[0].Key = "rare"
			}
			d.Data.Metrics = []meta.Point{{Key: "loss", Value: "0.5"}}
			r.JSON, _ = json.Marshal(map[string]any{"data": map[string]any{
				"params": d.Data.Params, "metrics": []map[string]any{{"key": "loss", "value": 0.5, "timestamp": i, "step": 1}},
			}})
		}
		p.Items = append(p.Items, r)
	}
	if first+ledgerPage < n {
		p.Next = strconv.Itoa(first + ledgerPage)
	}
	return p, nil
}

// shown mounts l's runs, and gives where its experiment stands, with what was logged.
func (l *ledger) shown(t *testing.T) (dir string, log *locked) {
	t.Helper()
	log = &locked{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	c := cache.New(cache.Options{TempDir: t.TempDir()})
	root, err := fs.New(fs.Options{Resolver: resolve.New(resolve.Options{Tracking: l, Cache: c, Log: logger, TTL: time.Hour}), Cache: c, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	point, _ := mounted(t, root, MountOptions{Log: logger})
	return filepath.Join(point, "experiments", "big"), log
}

// locked is what many write.
type locked struct {
	mu sync.Mutex
	w  strings.Builder
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.String()
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func heapNow() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestTableIsMadeAsFarAsItIsRead fails when a stat of a table of 100,000 runs, or a
// reader of its first lines, has more of it made than the first page; when the whole
// table, or what is known of it, stays in memory; or when what is read is not what
// the server has. It measures the heap, so it runs alone.
func TestTableIsMadeAsFarAsItIsRead(t *testing.T) {
	l := &ledger{n: 100_000}
	dir, _ := l.shown(t)
	table := filepath.Join(dir, "runs.csv")
	before, began := heapNow(), time.Now()
	run(t, "ls", "-l", table)
	if got := l.asked.Load(); got != 1 {
		t.Errorf("a stat cost %d searches", got)
	}
	head := run(t, "head", "-3", table)
	if got := l.asked.Load(); got != 1 || strings.Count(head, "\n") != 3 {
		t.Errorf("three lines cost %d searches:\n%s", got, head)
	}
	t.Logf("figure: a stat and three lines of 100,000 runs took %v", time.Since(began).Round(time.Millisecond))
	if grew := heapNow() - before; grew > 4<<20 {
		t.Errorf("a stat and three lines left %d KiB of heap", grew>>10)
	}
	if got := run(t, "sh", "-c", `wc -l <"$1"`, "sh", table); strings.TrimSpace(got) != fmt.Sprint(l.n+1) {
		t.Errorf("the table has %s lines", got)
	}
	if got := l.asked.Load(); got != int64(l.n/ledgerPage) {
		t.Errorf("all of it cost %d searches", got)
	}
	if grew := heapNow() - before; grew > 32<<20 {
		t.Errorf("the whole table left %d MiB of heap", grew>>20)
	}
	last := run(t, "tail", "-1", table)
	if want := fmt.Sprintf("%032x,run-%06d,FINISHED,", l.n-1, l.n-1); !strings.HasPrefix(last, want) {
		t.Errorf("the last line is %s", last)
	}
	rare := run(t, "grep", "-c", `""params.rare"":""0""`, table)
	if strings.TrimSpace(rare) != fmt.Sprint(l.n/1000-1) {
		t.Errorf("%s rows have the param that the first page has not", rare)
	}
}

// TestGrowingTableIsWholeForEveryProgram fails when a program that opens a table which
// has not been made takes a part of it for the whole: cp, rsync, tar, tail, wc, dd, a
// map, or Python. The last of them find it made, and the first ones do not: each has
// a mount of its own.
func TestGrowingTableIsWholeForEveryProgram(t *testing.T) {
	t.Parallel()
	l := &ledger{n: 1_999}
	plain, _ := l.shown(t)
	want := run(t, "cat", filepath.Join(plain, "runs.csv"))
	if strings.Count(want, "\n") != l.n+1 {
		t.Fatalf("cat has %d lines", strings.Count(want, "\n"))
	}
	for name, script := range map[string]string{
		"cp":                   `cp "$1" out`,
		"rsync":                `rsync "$1" out`,
		"tar":                  `tar -cf x.tar -C "$(dirname "$1")" runs.csv && tar -xOf x.tar runs.csv >out`,
		"dd":                   `dd if="$1" of=out bs=1M status=none`,
		"head":                 `head -n -0 "$1" >out`,
		"tail":                 `tail -n +1 "$1" >out`,
		"tail back":            `tail -n 2000 "$1" >out`,
		"tail bytes":           `tail -c 100000000 "$1" >out`,
		"less":                 `cat <"$1" >out`,
		"splice":               `cat "$1" | cat >out`,
		"python read":          `python3 -c 'import sys; open("out","wb").write(open(sys.argv[1],"rb").read())' "$1"`,
		"python copy":          `python3 -c 'import shutil,sys; shutil.copy2(sys.argv[1],"out")' "$1"`,
		"python map":           `python3 -c 'import mmap,sys; f=open(sys.argv[1],"rb"); open("out","wb").write(mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ)[:])' "$1"`,
		"python map privately": `python3 -c 'import mmap,sys; f=open(sys.argv[1],"rb"); open("out","wb").write(mmap.mmap(f.fileno(),0,flags=mmap.MAP_PRIVATE,prot=mmap.PROT_READ)[:])' "$1"`,
		"sendfile": `python3 -c 'import os,sys
i,o=os.open(sys.argv[1],os.O_RDONLY),os.open("out",os.O_WRONLY|os.O_CREAT); os.fstat(i)
while os.sendfile(o,i,None,1<<20): pass' "$1"`,
		"end": `python3 -c 'import os,sys
f=os.open(sys.argv[1],os.O_RDONLY); n=os.lseek(f,0,os.SEEK_END); open("out","wb").write(os.pread(f,n,0))' "$1"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one := &ledger{n: l.n}
			dir, _ := one.shown(t)
			table, at := filepath.Join(dir, "runs.csv"), t.TempDir()
			c := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", table)
			c.Dir = at
			if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v: %s", err, out)
			}
			if got, err := os.ReadFile(filepath.Join(at, "out")); string(got) != want || err != nil {
				t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
			}
			if st, err := os.Stat(table); err != nil || st.Size() != int64(len(want)) {
				t.Errorf("the size is %d and not %d after it, %v", st.Size(), len(want), err)
			}
			if got, most := one.asked.Load(), int64(one.n/ledgerPage+1); got != most {
				t.Errorf("it cost %d searches, and not %d", got, most)
			}
		})
	}
}

// TestTableOfUnknownSizeIsShownTooLarge fails when a table that has not been made is
// shown with a size that a program could take for the whole of it, as Python's tarfile
// does: it relies on the size that the name has, and must fail.
func TestTableOfUnknownSizeIsShownTooLarge(t *testing.T) {
	t.Parallel()
	l := &ledger{n: 1_999}
	dir, _ := l.shown(t)
	table := filepath.Join(dir, "runs.csv")
	st, err := os.Stat(table)
	if err != nil {
		t.Fatal(err)
	}
	whole := int64(len(run(t, "cat", table)))
	if st.Size() <= whole {
		t.Errorf("it is shown with %d bytes, and has %d", st.Size(), whole)
	}
	for _, other := range []*ledger{{n: l.n}, {n: l.n, bare: ledgerPage}} {
		for _, first := range []string{"true", `ls "$1"`} { // which tells how many runs there are
			dir, _ := other.shown(t)
			run(t, "sh", "-c", first, "sh", dir)
			out, err := exec.CommandContext(t.Context(), "python3", "-c", `import sys,tarfile; tarfile.open("/dev/null","w").add(sys.argv[1])`, filepath.Join(dir, "runs.csv")).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "unexpected end of data") {
				t.Errorf("%d without params, after %s: %v: %s", other.bare, first, err, out)
			}
		}
	}
}

// TestSendingATableOfUnknownSizeIsAnError fails when a program that has a table sent by
// the kernel, which reads it by the size that it was told last, gets zeros behind the
// end, or when the log does not say what to do.
func TestSendingATableOfUnknownSizeIsAnError(t *testing.T) {
	t.Parallel()
	l := &ledger{n: 1_999}
	dir, log := l.shown(t)
	out, err := exec.CommandContext(t.Context(), "python3", "-c", `import os,sys
i,o=os.open(sys.argv[1],os.O_RDONLY),os.open("/dev/null",os.O_WRONLY)
while os.sendfile(o,i,None,1<<20): pass`, filepath.Join(dir, "runs.csv")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Input/output error") || !strings.Contains(log.String(), "must ask for the size") {
		t.Errorf("%v: %s\n%s", err, out, log)
	}
}

// TestTableThatBreaksOffIsAnError fails when a server that fails in the middle of a
// table leaves a program with a part of it that looks whole, or when the log does not
// say so, or when the next open does not ask again.
func TestTableThatBreaksOffIsAnError(t *testing.T) {
	t.Parallel()
	for _, script := range []string{`cat "$1"`, `cat <"$1" | cat`, `tail -1 "$1"`, `wc -c "$1"`, `wc -l <"$1"`, `cp "$1" /dev/null`, `tar -cf - "$1" | cat`} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			l := &ledger{n: 1_999}
			l.fails.Store(1000)
			dir, log := l.shown(t)
			c := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", script, "sh", filepath.Join(dir, "runs.csv"))
			if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "Input/output error") {
				t.Errorf("%v: %s", err, out[max(0, len(out)-200):])
			}
			if !strings.Contains(log.String(), "the server has gone at run 1000") {
				t.Errorf("the log: %s", log)
			}
			l.fails.Store(0)
			if got := run(t, "sh", "-c", `wc -l <"$1"`, "sh", filepath.Join(dir, "runs.csv")); strings.TrimSpace(got) != "2000" {
				t.Errorf("after it: %s lines", got)
			}
		})
	}
}

// TestTableThatBrokeOffIsMadeAnewBesideItsReader fails when a program can't read a table
// that another, which still has it open, has seen break off.
func TestTableThatBrokeOffIsMadeAnewBesideItsReader(t *testing.T) {
	t.Parallel()
	l := &ledger{n: 1_999}
	l.fails.Store(1000)
	dir, _ := l.shown(t)
	table := filepath.Join(dir, "runs.csv")
	c := exec.CommandContext(t.Context(), "sh", "-c", `exec 3<"$1"; cat <&3 2>&1 >/dev/null; echo; read wait; cat <&3 2>&1`, "sh", table)
	in, ierr := c.StdinPipe()
	out, oerr := c.StdoutPipe()
	if err := errors.Join(ierr, oerr, c.Start()); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); err != nil || !strings.Contains(line, "Input/output error") {
		t.Errorf("it reads %q, %v", line, err)
	}
	l.fails.Store(0)
	for range 2 {
		if got := run(t, "sh", "-c", `stat -c %s "$1"; cat <"$1" | wc -l; tail -n +1 "$1" | wc -l; stat -c %s "$1"; wc -c <"$1"`, "sh", table); !regexp.MustCompile(`^\d+\n2000\n2000\n(\d+)\n\d+\n$`).MatchString(got) {
			t.Errorf("beside it: %s", got)
		}
	}
	in.Close()
	rest, err := io.ReadAll(said)
	if err := errors.Join(err, c.Wait()); err == nil || !strings.Contains(string(rest), "Input/output error") {
		t.Errorf("the reader goes on with %.200q, %v", rest, err)
	}
}

// TestReadersOfATableShareIt fails when programs that read one table at once, or one
// after the other, have it made more than once.
func TestReadersOfATableShareIt(t *testing.T) {
	t.Parallel()
	l := &ledger{n: 3_999}
	dir, _ := l.shown(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got := run(t, "sh", "-c", `wc -l <"$1"`, "sh", filepath.Join(dir, "runs.csv")); strings.TrimSpace(got) != "4000" {
				t.Errorf("%s lines", got)
			}
		})
	}
	all.Wait()
	if got := l.asked.Load(); got != int64(l.n/ledgerPage+1) {
		t.Errorf("it cost %d searches", got)
	}
}
