package fs

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shell starts a process that runs commands in dir. The function returns what a command
// says.
func shell(t *testing.T, dir string) func(command string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-c", `cd "$1" && while read -r line; do eval "$line" 2>&1; echo; echo over; done`, "sh", dir)
	c.Stderr = t.Output()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Wait() }) // the end of the test's context kills it
	lines := bufio.NewReader(out)
	return func(command string) string {
		t.Helper()
		if _, err := fmt.Fprintln(in, command); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == "over\n" {
				return strings.TrimSpace(said.String())
			}
			said.WriteString(line)
		}
	}
}

// settled is a directory that says that its entries change no more, and lets somebody
// change them.
type settled struct {
	mu    sync.Mutex // guards names
	names []string
	ttl   time.Duration
}

func (d *settled) Settled() bool { return true }

func (d *settled) Lookup(_ context.Context, name string) (*Node, error) {
	if name == "d" {
		return &Node{Dir: d, TTL: d.ttl}, nil
	}
	return sized(name), nil
}

func (d *settled) List(context.Context) (Listing, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out entries
	for _, name := range d.names {
		out = append(out, Entry{name, sized(name)})
	}
	return &out, nil
}

// TestSettledDirectoryIsListedAnew fails when the kernel lists a directory from its
// memory for longer than it may believe the directory: an artifact that is added to an
// ended run is never listed.
func TestSettledDirectoryIsListedAnew(t *testing.T) {
	t.Parallel()
	d := &settled{names: []string{"a"}, ttl: time.Second}
	point, _ := mounted(t, &Node{Dir: d}, MountOptions{})
	dir := filepath.Join(point, "d")
	if got := run(t, "ls", dir); got != "a\n" {
		t.Errorf("it lists %q", got)
	}
	run(t, "ls", dir)
	d.mu.Lock()
	d.names = append(d.names, "b")
	d.mu.Unlock()
	time.Sleep(d.ttl + 100*time.Millisecond)
	if got := run(t, "ls", dir); got != "a\nb\n" {
		t.Errorf("after its time, it lists %q", got)
	}
}
