//go:build linux

package sessionfile

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// done is how many changes the daemon of this test has made. It is in a slot.
func done(f *File) *uint64 { return f.mem.word64(firstSlot + 8) }

func killedOps(seed uint64) (*rand.Rand, int) {
	r := rand.New(rand.NewPCG(seed, 2))
	return r, r.IntN(6)
}

// changeForever is the daemon.
func changeForever() error {
	f, err := Open(os.NewFile(3, "session"), 7)
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(os.Getenv("SESSIONFILE_SEED"), 10, 64)
	if err != nil {
		return err
	}
	r, adds := killedOps(seed)
	ops := make([]op, 20000) // made beforehand, for it to be killed in nothing but changes
	for {
		for i := range ops {
			ops[i] = randomOp(r, adds)
		}
		for _, o := range ops {
			if err := o.change(f); err != nil {
				return err
			}
			atomic.AddUint64(done(f), 1)
		}
	}
}

// TestKilledDaemonLeavesAllButTheLastChange fails when a daemon that is killed at any
// instruction leaves less or more than the changes that it had made, and maybe the one that
// it was making; or when its file can't be opened.
func TestKilledDaemonLeavesAllButTheLastChange(t *testing.T) {
	t.Parallel()
	for lane := range uint64(2) {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			f, w := create(t), newWorld()
			f.mem.store64(firstSlot, 48) // in use
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), lane))
			doubts := map[string]int{}
			for range 50 {
				seed := r.Uint64()
				made := killOne(t, f, seed, r.Uint64N(4000), time.Duration(r.IntN(1000))*time.Microsecond)
				next, err := Open(f.Descriptor(), 7)
				if err != nil {
					t.Fatalf("seed %d, after %d changes: %v", seed, made, err)
				}
				doubts[w.settle(t, next, seed, made)]++
				if used, err := next.Used(); err != nil || len(used) != 1 || used[0] != 0 {
					t.Errorf("slots %v are in use: %v", used, err)
				}
				next.Close()
			}
			t.Logf("the last change was %v", doubts)
		})
	}
}

// killOne runs a daemon, and kills it when it has made so many changes and a while has passed.
func killOne(t *testing.T, f *File, seed, after uint64, while time.Duration) (made uint64) {
	atomic.StoreUint64(done(f), 0)
	var said bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SESSIONFILE_CHILD=changes", "SESSIONFILE_SEED="+strconv.FormatUint(seed, 10))
	cmd.ExtraFiles = []*os.File{f.Descriptor()}
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); atomic.LoadUint64(done(f)) < after; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			break
		}
	}
	for end := time.Now().Add(while); time.Now().Before(end); {
	}
	cmd.Process.Kill()
	cmd.Wait()
	made = atomic.LoadUint64(done(f))
	if said.Len() > 0 || made < after {
		t.Fatalf("after %d changes the daemon said %s", made, said.String())
	}
	return made
}

// settle has w be what the file says, where that is what the changes make of it, or with one
// more of them, all of it or a part.
func (w *world) settle(t *testing.T, f *File, seed, made uint64) (last string) {
	r, adds := killedOps(seed)
	for range made {
		randomOp(r, adds).tell(w)
	}
	not := w.compare(f)
	if not == nil {
		return "not made"
	}
	o := randomOp(r, adds)
	leads := maps.Clone(w.leads)
	o.tell(w)
	whole := w.compare(f)
	if whole == nil {
		return "made"
	}
	changed := w.rows[o.name.Number].way()
	made2 := w.leads[changed]
	delete(w.leads, changed)
	none := w.compare(f)
	if (o.what == add || o.what == lead) && none == nil && made2 != leads[changed] {
		return "made, and its name leads nowhere"
	}
	w.leads[changed] = leads[changed]
	old := w.compare(f)
	if o.what == add && leads[changed] != 0 && old == nil {
		return "made, and its name leads to the former"
	}
	t.Fatalf("seed %d, after %d changes, then %v: %v", seed, made, o, errors.Join(not, whole, none, old))
	return ""
}
