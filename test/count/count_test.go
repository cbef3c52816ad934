package count

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

// TestOriginCountsWhatPasses fails when a request, or a byte of a counted body, is
// not counted, or when another body's bytes are.
func TestOriginCountsWhatPasses(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1000)) }))
	defer server.Close()
	o, err := NewOrigin(server.URL, "/bytes/")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Stop()
	for _, path := range []string{"/bytes/a?x=1", "/other"} {
		resp, err := http.Get(o.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	requests, n := o.Reset()
	if strings.Join(requests, " ") != "GET /bytes/a?x=1 GET /other" || n != 1000 || Of(requests, "bytes") != 1 {
		t.Errorf("%q, %d bytes", requests, n)
	}
	if requests, n := o.Reset(); len(requests) > 0 || n > 0 {
		t.Errorf("after the reset: %q, %d bytes", requests, n)
	}
}

// TestReadsAreFoundInTheLog fails when a READ in a daemon's log is not seen: then a
// test by absence would always pass.
func TestReadsAreFoundInTheLog(t *testing.T) {
	t.Parallel()
	const log = `time=… level=DEBUG msg="rx 34: READ n5 {Fh 3 [131072 +131072)  L 0 RDONLY,0x8000} "
time=… level=DEBUG msg="rx 36: LOOKUP n1 [\"READ\"] 5b"
time=… level=DEBUG msg="rx 38: READ n12 {Fh 14 [0 +4096)  L 0 RDONLY,0x8000} "`
	if got := ReadsInLog(log); got != (Reads{2, 131072 + 4096}) {
		t.Errorf("%+v", got)
	}
}

// TestSyscallsAreCounted fails when a process's system calls are not counted.
func TestSyscallsAreCounted(t *testing.T) {
	t.Parallel()
	c := exec.Command("sh", "-c", "while true; do read line || exit; echo $line; done")
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
	defer func() {
		in.Close()
		c.Wait()
	}()
	stop, err := Syscalls(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		io.WriteString(in, "one\n")
		if _, err := out.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	calls, err := stop()
	if err != nil || calls["write"] < 4 || calls["write"] > 5 || calls["read"] < 16 { // the last one may not have ended

		t.Errorf("%v, %v", calls, err)
	}
}

// TestTallyCountsByName fails when an event is not counted under its name.
func TestTallyCountsByName(t *testing.T) {
	t.Parallel()
	var n Tally
	for _, name := range []string{"read data", "read record", "write data", "read data"} {
		n.Add(name)
	}
	if n.Of() != 4 || n.Of("read ") != 3 || n.Of("read record", "write") != 2 || n.Of("none") != 0 {
		t.Errorf("%d %d %d", n.Of(), n.Of("read "), n.Of("read record", "write"))
	}
	if got := n.String(); got != "read data: 2, read record: 1, write data: 1" {
		t.Error(got)
	}
	if n.Reset(); n.Of() != 0 {
		t.Error("they are still counted")
	}
}
