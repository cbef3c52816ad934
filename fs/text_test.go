package fs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestTextsAreToldApartWithoutACopy fails when what tells a text's content from
// another one, which an inode keeps, is as long as the text; or when two texts of
// one size are taken for one.
func TestTextsAreToldApartWithoutACopy(t *testing.T) {
	t.Parallel()
	identity := func(s string) string {
		h, err := sized(s).File.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return h.(Identified).Identity()
	}
	long := strings.Repeat("x", 1<<20)
	if n := len(identity(long)); n > 100 {
		t.Errorf("the identity of a text of %d bytes has %d", len(long), n)
	}
	if identity(long) != identity(strings.Clone(long)) {
		t.Error("one text has two identities")
	}
	if identity("a"+long) == identity("b"+long) {
		t.Error("two texts have one identity")
	}
}

// tables is a directory of n large texts, each made when it is looked up.
type tables struct{ n, size int }

func (d tables) Lookup(_ context.Context, name string) (*Node, error) {
	n := sized(strings.Repeat(name[:1], d.size))
	n.TTL = time.Hour
	return n, nil
}

func (d tables) List(context.Context) (Listing, error) {
	var out entries
	for i := range d.n {
		out = append(out, Entry{fmt.Sprintf("%06d", i), &Node{File: text(""), Later: true}})
	}
	return &out, nil
}

// TestTextsOfKnownNamesAreBounded fails when the daemon keeps the text of each table
// that a program ever looked at, beyond what the names that the kernel knows may
// take.
func TestTextsOfKnownNamesAreBounded(t *testing.T) {
	t.Parallel()
	const n, size, bound = 100, 1 << 20, 1000
	point, m := mounted(t, &Node{Dir: tables{n, size}, TTL: time.Hour}, MountOptions{Log: slog.New(slog.DiscardHandler), MaxNames: bound})
	if got := find(t, point, "-size", "+2"); got != n {
		t.Fatalf("%d files, want %d", got, n)
	}
	eventually(t, "no more is kept than the bound allows", func() bool { return m.names.over() <= 0 })
	if kept, most := m.names.len(), bound*nameBytes/size+1; kept > most {
		t.Errorf("%d names are kept, each with a text of %d bytes: want at most %d", kept, size, most)
	}
}
