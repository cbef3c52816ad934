package fusefs

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs"
)

// TestHandleOutlivesTheKernelsMemory fails when a file, or a directory, can't be opened by a
// handle (name_to_handle_at) once the kernel has forgotten it, or another is opened; or when
// one that was never known is, or one whose name leads to another content by now.
func TestHandleOutlivesTheKernelsMemory(t *testing.T) {
	t.Parallel()
	d := &turning{}
	d.set(false, "old")
	root := &fs.Node{Dir: fixed{{Name: "d", Node: &fs.Node{Dir: fixed{{Name: "f", Node: sized("content")}}}}, {Name: "t", Node: &fs.Node{Dir: d}}}}
	point, m := mounted(t, root, MountOptions{Log: slog.New(slog.DiscardHandler)})
	at, err := unix.Open(point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	handle := func(name string) unix.FileHandle {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(point, name), 0)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	file, dir, turned := handle("d/f"), handle("d"), handle("t/f")
	eventually(t, "the kernel has forgotten", func() bool {
		for _, name := range []string{"d", "t"} {
			m.server.EntryNotify(fuse.FUSE_ROOT_ID, name)
		}
		return m.a.names.len() == 0
	})
	open := func(h unix.FileHandle, flags int) (*os.File, error) {
		fd, err := unix.OpenByHandleAt(at, h, flags|unix.O_CLOEXEC)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), ""), nil
	}
	f, err := open(file, unix.O_RDONLY)
	if err != nil {
		t.Fatal("the file:", err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); string(b) != "content" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	f, err = open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		t.Fatal("the directory:", err)
	}
	defer f.Close()
	if names, err := f.Readdirnames(-1); !slices.Equal(names, []string{"f"}) || err != nil {
		t.Errorf("it has %v, %v", names, err)
	}
	d.set(false, "another")
	never := unix.NewFileHandle(file.Type(), bytes.Repeat([]byte{7}, file.Size()))
	for what, h := range map[string]unix.FileHandle{"what changed": turned, "what never was": never} {
		if f, err := open(h, unix.O_RDONLY); err != syscall.ESTALE {
			t.Errorf("%s: %v, want %v", what, err, syscall.ESTALE)
			f.Close()
		}
	}
}
