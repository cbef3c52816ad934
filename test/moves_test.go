package test

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMovesAreSeenByInotify fails when a program that watches an alias by inotify
// does not hear of a move, whoever else has looked at the link in between, or of
// its end; or when a link that nobody watches costs the server a request.
func TestMovesAreSeenByInotify(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17").server
	model, to := newAlias(t, s.url())
	to("1")
	m := mountRaced(t, s.url(), fast, "--metadata-ttl", "500ms")
	link := m.path("models", model+"@champion")
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
	requests := func() (n int64) {
		t.Helper()
		for _, c := range m.status().Requests {
			n += c
		}
		return n
	}
	// known waits until the link is known to be watched: then it is asked for again
	// and again.
	known := func() {
		t.Helper()
		before := requests()
		waitFor(t, "a watched link is not asked for", 2*soon, func() bool { return requests() >= before+2 })
	}

	if got := leads(); got != model+"/1" {
		t.Fatal(got)
	}
	watch()
	if hears(2 * time.Second) {
		t.Error("an event, and nothing has moved")
	}
	to("2") // and nobody looks
	if !hears(soon) {
		t.Error("a move is not heard of")
	}
	if got := leads(); got != model+"/2" {
		t.Errorf("the event has come, and the link leads to %s", got)
	}

	watch()
	known()
	to("3")
	waitFor(t, "the link does not move", soon, func() bool { return leads() == model+"/3" }) // others look all the time
	if !hears(soon) {
		t.Error("a move that others saw first is not heard of")
	}

	watch()
	api(t, s.url(), "DELETE /api/2.0/mlflow/registered-models/alias", map[string]any{"name": model, "alias": "champion"})
	if !hears(soon) {
		t.Error("the end of an alias is not heard of")
	}
	if out, err := output("readlink", link); err == nil {
		t.Errorf("it still leads to %s", out)
	}
	to("1")
	waitFor(t, "the alias does not come back", soon, func() bool { out, _ := output("readlink", link); return string(out) == model+"/1\n" })

	// By absence: what nobody watches is not asked for.
	leads()
	settled(requests)
	before := requests()
	time.Sleep(3 * time.Second) // several lifetimes
	if n := requests() - before; n != 0 {
		t.Errorf("%d requests for a link that nobody watches", n)
	}
	watch()
	known()
	before = requests()
	time.Sleep(4 * time.Second)
	if n := requests() - before; n < 2 || n > 9 {
		t.Errorf("%d requests in 4 s for a watched link with a lifetime of 500 ms", n)
	}
}
