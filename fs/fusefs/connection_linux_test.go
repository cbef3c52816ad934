package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs"
)

// serial is a directory of files with numbers for names. Each look-up is counted, and has
// another size, so that the kernel believes none.
type serial struct{ looked atomic.Int64 }

func (d *serial) Lookup(_ context.Context, name string) (*fs.Node, error) {
	d.looked.Add(1)
	return &fs.Node{File: text(name), Size: int64(len(name))}, nil
}

func (d *serial) List(context.Context) (fs.Listing, error) { return nil, io.EOF }

// TestTakeoverLosesNoRequest fails when a session that goes from one daemon to the next loses
// a request or has one answered with an error, does not go while nothing is asked, or is
// answered by one that let go of it.
func TestTakeoverLosesNoRequest(t *testing.T) {
	t.Parallel()
	d := &serial{}
	root, opt := &fs.Node{Dir: d}, MountOptions{Log: slog.New(slog.DiscardHandler)}
	point, m := mounted(t, root, opt)
	h := hold(t, point, m)
	ctx, cancel := context.WithCancel(t.Context())
	const readers = 4
	var all sync.WaitGroup
	var asked atomic.Int64
	for r := range readers {
		cmd := exec.CommandContext(ctx, "sh", "-c", `i=0; while i=$((i+1)); do [ "$(cat "$0/`+fmt.Sprint(r)+`$i")" = `+fmt.Sprint(r)+`$i ] || exit 9; echo; done`, point)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			b := make([]byte, 4096)
			for {
				n, err := out.Read(b)
				asked.Add(int64(n))
				if err != nil {
					break
				}
			}
			if err := cmd.Wait(); ctx.Err() == nil {
				t.Errorf("a reader ends: %v", err)
			}
		})
	}
	for round := range 50 {
		before := asked.Load()
		eventually(t, "the readers go on", func() bool { return asked.Load() > before+readers })
		begun := time.Now()
		h.letGo(t)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("round %d: it takes %v to let go", round, took)
		}
		looked := d.looked.Load()
		time.Sleep(5 * time.Millisecond)
		if now := d.looked.Load(); now != looked {
			t.Errorf("round %d: %d requests are answered while nobody has the session", round, now-looked)
		}
		h.takeUp(t, root, opt)
	}
	cancel()
	all.Wait()
	for range 20 { // nothing is asked
		h.letGo(t)
		h.takeUp(t, root, opt)
	}
	if b, err := os.ReadFile(filepath.Join(point, "last")); string(b) != "last" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if n := h.m.TakenOver(); n != 70 {
		t.Errorf("it was taken over %d times, want 70", n)
	}
}

// TestAnswersHaveRoom fails when an answer of some length is cut, is refused, or has other
// bytes in it: a file that is read in pieces of any size, a long link, a long listing, many
// attributes.
func TestAnswersHaveRoom(t *testing.T) {
	t.Parallel()
	content := make([]byte, 5<<20+77)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	link := strings.Repeat("a/", 2000) + "end"
	root := fixed{
		{Name: "f", Node: &fs.Node{File: described{text(content), map[string]string{"long": strings.Repeat("v", 60_000)}}, Size: int64(len(content)), TTL: time.Hour}},
		{Name: "link", Node: &fs.Node{Link: link, TTL: time.Hour}},
	}
	for i := range 3000 {
		root = append(root, fs.Entry{Name: fmt.Sprintf("%0200d", i), Node: &fs.Node{File: text("x"), Size: 1, TTL: time.Hour}})
	}
	for _, maxRead := range []int{0, 4 << 10, 128 << 10, 256 << 10} {
		t.Run(fmt.Sprint(maxRead), func(t *testing.T) {
			t.Parallel()
			point, _ := mounted(t, &fs.Node{Dir: root, TTL: time.Hour}, MountOptions{MaxRead: maxRead, Log: slog.New(slog.DiscardHandler)})
			for _, bs := range []string{"511", "4096", "100000", "131072", "1048576", "3000000"} {
				for _, direct := range [][]string{nil, {"iflag=direct"}} {
					if direct != nil && len(bs) < 4 {
						continue
					}
					cmd := exec.Command("dd", append([]string{"if=" + filepath.Join(point, "f"), "bs=" + bs, "status=none"}, direct...)...)
					cmd.Stderr = t.Output()
					if got, err := cmd.Output(); err != nil || !bytes.Equal(got, content) {
						t.Errorf("by %s %v: %d bytes, or wrong ones, %v", bs, direct, len(got), err)
					}
				}
			}
			if to, err := os.Readlink(filepath.Join(point, "link")); to != link || err != nil {
				t.Errorf("the link has %d bytes, %v", len(to), err)
			}
			if names, err := os.ReadDir(point); len(names) != len(root) || err != nil {
				t.Errorf("%d names, %v", len(names), err)
			}
			value := make([]byte, 64<<10)
			n, err := unix.Getxattr(filepath.Join(point, "f"), "user.mlflow.long", value)
			if n != 60_000 || err != nil {
				t.Errorf("the attribute has %d bytes, %v", n, err)
			}
		})
	}
}

// described is a file with attributes.
type described struct {
	fs.File
	attributes map[string]string
}

func (d described) Attributes() map[string]string { return d.attributes }

// TestNoDeviceNoMount fails when a mount that the kernel or fusermount3 refuses leaves a
// mount, or a descriptor, behind.
func TestNoDeviceNoMount(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	before := descriptors(t)
	for range 3 {
		if _, err := Mount(missing, &fs.Node{Dir: fixed{}}, MountOptions{Log: slog.New(slog.DiscardHandler)}); err == nil || errors.Is(err, context.Canceled) {
			t.Error("it is mounted")
		}
	}
	if now := descriptors(t); now > before {
		t.Errorf("%d descriptors are open, and %d were", now, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
