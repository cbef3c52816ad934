package fs

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// turning is a directory whose one file is another at each look-up.
type turning struct {
	mu   sync.Mutex // guards next
	next []*Node    // the last stays
}

func (d *turning) Lookup(context.Context, string) (*Node, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.next[0]
	if len(d.next) > 1 {
		d.next = d.next[1:]
	}
	return n, nil
}

func (d *turning) List(context.Context) (Listing, error) { return &entries{}, nil }

// set has the next look-ups find contents, in that order. bare ones have nothing that
// tells them from each other but their size.
func (d *turning) set(bare bool, contents ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = nil
	for _, s := range contents {
		n := sized(s)
		if bare {
			n.Stamp = ""
		}
		d.next = append(d.next, n)
	}
}

// TestNameLeadsToWhatWasFoundLast fails when an open of a name reads what an earlier
// look-up found, since the kernel still knows the inode of that: another program has it
// open, or it has not been forgotten yet.
func TestNameLeadsToWhatWasFoundLast(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		t.Run(fmt.Sprint("bare ", bare), func(t *testing.T) {
			t.Parallel()
			d := &turning{}
			point, _ := mounted(t, &Node{Dir: d}, MountOptions{})
			file := filepath.Join(point, "f")
			d.set(bare, "old")
			holder := exec.CommandContext(t.Context(), "sh", "-c", `exec 3<"$1"; cat <"$1"; echo; read wait; cat <&3`, "sh", file)
			in, err := holder.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var said locked
			holder.Stdout = &said
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the file is open", func() bool { return said.String() == "old\n" })
			for round := range 20 {
				want := fmt.Sprintf("%03d", round)
				d.set(bare, "another", want) // of another size, and of the old one's again
				if got := run(t, "cat", file); got != want && got != "another" {
					t.Errorf("round %d: it reads %q", round, got)
				}
				if got := run(t, "cat", file); got != want {
					t.Errorf("round %d: it reads %q", round, got)
				}
			}
			in.Close()
			if err := holder.Wait(); err != nil || !strings.HasSuffix(said.String(), "old") {
				t.Errorf("the one who has it open reads %q, %v", said.String(), err)
			}
		})
	}
}
