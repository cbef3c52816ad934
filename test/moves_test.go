package test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A program that watches an alias by inotify hears of each move, whoever else
// has looked at the link in between, and also when the alias goes. A link that
// nobody watches costs the server nothing.
func TestMovesAreSeenByInotify(t *testing.T) {
	s := startServer(t, "mlflow3", nil)
	to := newAlias(t, s.url())
	to("1")
	m := mountAt(t, s.url(), fast, "--metadata-ttl", "1s")
	link := m.path("models", "w@champion")
	leads := func() string {
		out, err := output("readlink", link)
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(out))
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	in := os.NewFile(uintptr(fd), "inotify")
	defer in.Close()
	watch := func() {
		t.Helper()
		if _, err := unix.InotifyAddWatch(fd, link, unix.IN_DONT_FOLLOW|unix.IN_DELETE_SELF); err != nil {
			t.Fatal(err)
		}
	}
	// hears waits for the event, and for the end of the watch that comes with it.
	hears := func(within time.Duration) bool {
		t.Helper()
		in.SetReadDeadline(time.Now().Add(within))
		buf := make([]byte, 4096)
		n, err := in.Read(buf)
		return err == nil && n >= unix.SizeofInotifyEvent && buf[5]&(unix.IN_DELETE_SELF>>8) != 0
	}
	const soon = 10 * time.Second

	if got := leads(); got != "w/1" {
		t.Fatal(got)
	}
	watch()
	if hears(3 * time.Second) {
		t.Error("an event, and nothing has moved")
	}
	to("2") // and nobody looks
	if !hears(soon) {
		t.Error("a move is not heard of")
	}
	if got := leads(); got != "w/2" {
		t.Errorf("the event has come, and the link leads to %s", got)
	}

	watch()
	time.Sleep(3 * time.Second) // it is known to be watched
	to("3")
	waitFor(t, "the link does not move", soon, func() bool { return leads() == "w/3" }) // others look all the time
	if !hears(soon) {
		t.Error("a move that others saw first is not heard of")
	}

	watch()
	api(t, s.url(), "DELETE /api/2.0/mlflow/registered-models/alias", map[string]any{"name": "w", "alias": "champion"})
	if !hears(soon) {
		t.Error("the end of an alias is not heard of")
	}
	if out, err := output("readlink", link); err == nil {
		t.Errorf("it still leads to %s", out)
	}
	to("1")
	waitFor(t, "the alias does not come back", soon, func() bool { out, _ := output("readlink", link); return string(out) == "w/1\n" })

	// By absence: what nobody watches is not asked for.
	requests := func() (n int64) {
		t.Helper()
		b, err := read(m.path(".mlflowfs", "status.json"))
		var s struct {
			Requests map[string]int64 `json:"server_requests"`
		}
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Requests {
			n += c
		}
		return n
	}
	leads()
	time.Sleep(3 * time.Second)
	before := requests()
	time.Sleep(4 * time.Second)
	if n := requests() - before; n != 0 {
		t.Errorf("%d requests for a link that nobody watches", n)
	}
	watch()
	time.Sleep(3 * time.Second)
	before = requests()
	time.Sleep(5 * time.Second)
	if n := requests() - before; n < 2 || n > 6 {
		t.Errorf("%d requests in 5 s for a watched link with a lifetime of 1 s", n)
	}
}
