//go:build linux

package sessionfile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// useLimited is a process with limits on its files and on its addresses. SIGXFSZ and SIGBUS
// would end it.
func useLimited() error {
	limit := func(of int, to uint64) error {
		return unix.Setrlimit(of, &unix.Rlimit{Cur: to, Max: unix.RLIM_INFINITY})
	}
	if err := limit(unix.RLIMIT_FSIZE, leastSize-1); err != nil {
		return err
	}
	if _, err := Create(7); err == nil || !strings.Contains(err.Error(), "ulimit -f") {
		return fmt.Errorf("below the least size: %v", err)
	}
	if err := errors.Join(limit(unix.RLIMIT_FSIZE, unix.RLIM_INFINITY), limit(unix.RLIMIT_AS, 4<<30)); err != nil {
		return err
	}
	f, err := Create(7)
	if err != nil {
		return fmt.Errorf("with few addresses: %v", err)
	}
	if err := errors.Join(f.Close(), limit(unix.RLIMIT_FSIZE, leastSize+100)); err != nil {
		return err
	}
	f, err = Create(7)
	if err != nil {
		return fmt.Errorf("at the least size: %v", err)
	}
	return fill(f)
}

// fill has it full twice.
func fill(f *File) error {
	full := 0
	for range 2 {
		i := uint64(0)
		for ; ; i++ {
			if _, err := f.Names.Add(Name{Number: i, Name: fmt.Sprint(i)}); err != nil {
				break
			}
		}
		if full != 0 && full != int(i) || i < 1<<20/90 || f.Names.Len() != int(i) || f.Names.At(i) != 0 {
			return fmt.Errorf("the file is full at %d names, was at %d", i, full)
		}
		full = int(i)
		next, err := Open(f.Descriptor(), 7)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		f = next
		for i := range i {
			f.Names.Remove(f.Names.At(i))
		}
	}
	return f.Close()
}

// TestLimitsAreErrors fails when limits of the process end it, or when a file that is full
// takes no more after names went.
func TestLimitsAreErrors(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SESSIONFILE_CHILD=limited")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
}

// TestNoMemoryIsAnError fails when a name or a handle that there is no memory for changes
// something, or is not taken when there is memory again. There is none for a file that can
// only be read.
func TestNoMemoryIsAnError(t *testing.T) {
	t.Parallel()
	f := create(t)
	if _, err := f.Names.Add(Name{Number: 1, Name: "name"}); err != nil {
		t.Fatal(err)
	}
	name, handle := Name{Number: 2, Name: "a longer name"}, Handle{Number: 1}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	f.Names.chunks.f, f.Handles.chunks.f = null, null
	_, err = f.Names.Add(name)
	if err == nil || f.Handles.Add(handle) == nil || f.Names.Len() != 1 || f.Names.At(2) != 0 || f.Names.Leads(0, name.Name) != 0 || f.Handles.Len() != 0 {
		t.Errorf("it was taken: %v", err)
	}
	if _, err := f.Names.Add(Name{Number: 3, Name: "eman"}); err != nil {
		t.Errorf("there is room in a chunk: %v", err)
	}
	f.Names.chunks.f, f.Handles.chunks.f = f.f, f.f
	if _, err = f.Names.Add(name); err != nil {
		t.Error(err)
	}
	if err := f.Handles.Add(handle); err != nil {
		t.Error(err)
	}
	if open(t, f).Names.Len() != 3 {
		t.Error("the file is damaged")
	}
}
