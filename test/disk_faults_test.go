package test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// badDisk is a directory on a filesystem whose disk fails at will.
type badDisk struct {
	dir  string
	mode atomic.Value // of fault
	hang chan struct{}
	hits atomic.Int64
}

// fault gives the errno of an operation, or waits.
type fault func(op string) syscall.Errno

func (d *badDisk) fault(op string) syscall.Errno {
	f, _ := d.mode.Load().(fault)
	if f == nil {
		return 0
	}
	e := f(op)
	if e != 0 {
		d.hits.Add(1)
	}
	return e
}

func newBadDisk(t *testing.T) *badDisk {
	t.Helper()
	below, err := os.MkdirTemp(work, "below-")
	if err != nil {
		t.Fatal(err)
	}
	d := &badDisk{hang: make(chan struct{})}
	if d.dir, err = os.MkdirTemp(work, "disk-"); err != nil {
		t.Fatal(err)
	}
	root := &gofs.LoopbackRoot{Path: below}
	server, err := gofs.Mount(d.dir, &badNode{gofs.LoopbackNode{RootData: root}, d}, &gofs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.mode.Store(fault(nil))
		for range 100 {
			if err = server.Unmount(); err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("the bad disk: %v", err)
			syscall.Unmount(d.dir, syscall.MNT_DETACH)
		}
		os.RemoveAll(below)
		os.Remove(d.dir)
	})
	return d
}

type badNode struct {
	gofs.LoopbackNode
	d *badDisk
}

var (
	_ gofs.NodeOpener      = (*badNode)(nil)
	_ gofs.NodeCreater     = (*badNode)(nil)
	_ gofs.NodeLookuper    = (*badNode)(nil)
	_ gofs.NodeWrapChilder = (*badNode)(nil)
)

func (n *badNode) WrapChild(context.Context, gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &badNode{gofs.LoopbackNode{RootData: n.RootData}, n.d}
}

func (n *badNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if e := n.d.fault("lookup"); e != 0 {
		return nil, e
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

func (n *badNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if e := n.d.fault("open"); e != 0 {
		return nil, 0, e
	}
	fh, fl, e := n.LoopbackNode.Open(ctx, flags)
	return n.file(fh, n.Path(nil)), fl, e
}

func (n *badNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	if e := n.d.fault("create"); e != 0 {
		return nil, nil, 0, e
	}
	in, fh, fl, e := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return in, n.file(fh, name), fl, e
}

// file has the faults of files that hold artifacts; what is mapped has none.
func (n *badNode) file(fh gofs.FileHandle, name string) gofs.FileHandle {
	f, ok := fh.(*gofs.LoopbackFile)
	if !ok || filepath.Base(name) == "usage" || filepath.Base(name) == "lock" {
		return fh
	}
	return &badFile{f, n.d}
}

type badFile struct {
	*gofs.LoopbackFile
	d *badDisk
}

func (f *badFile) PassthroughFd() (int, bool) { return 0, false }

func (f *badFile) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if e := f.d.fault("read"); e != 0 {
		return nil, e
	}
	return f.LoopbackFile.Read(ctx, buf, off)
}

func (f *badFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if e := f.d.fault("write"); e != 0 {
		return 0, e
	}
	return f.LoopbackFile.Write(ctx, data, off)
}

// A cache disk that fails, is full, is read-only, is slow or answers no more
// fails no read: it is left alone, which is said once, and used again when it
// is well.
func TestBadDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test drops the page cache: run it as root")
	}
	on := func(e syscall.Errno, ops string) func(*badDisk) fault {
		return func(*badDisk) fault {
			return func(op string) syscall.Errno {
				if strings.Contains(ops, op) {
					return e
				}
				return 0
			}
		}
	}
	for name, c := range map[string]struct {
		mode func(*badDisk) fault
		says bool
	}{
		"EIO on writes": {on(syscall.EIO, "write"), true},
		"EIO on reads":  {on(syscall.EIO, "read"), true},
		"EIO on all":    {on(syscall.EIO, "read write open create lookup"), true},
		"full":          {on(syscall.ENOSPC, "write create"), true},
		"no inodes":     {on(syscall.ENOSPC, "create"), true},
		"read-only":     {on(syscall.EROFS, "write create"), true},
		"slow": {func(*badDisk) fault {
			return func(string) syscall.Errno { time.Sleep(10 * time.Millisecond); return 0 }
		}, false},
		"hangs": {func(d *badDisk) fault {
			return func(string) syscall.Errno { d.hits.Add(1); <-d.hang; return 0 }
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size = 6 << 20
			d := newBadDisk(t)
			e := newEngineFiles(t, map[string]int{"a": size, "b": size, "c": size})
			m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + d.dir}, "--no-passthrough", "--memory-limit", "64MiB")
			e.same(t, m, "a")
			time.Sleep(300 * time.Millisecond)
			if stored(t, d.dir) < size>>17 {
				t.Fatal("nothing is stored while all is well")
			}
			d.mode.Store(c.mode(d))
			dropCaches(t)
			begin := time.Now()
			e.same(t, m, "b")
			e.same(t, m, "a")
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("two reads took %v", took)
			}
			if c.says && d.hits.Load() == 0 {
				t.Error("no fault was met")
			}
			if n := strings.Count(m.log.String(), "can't be used for now"); c.says != (n == 1) || n > 1 {
				t.Errorf("it is said %d times:\n%s", n, m.log)
			}
			d.mode.Store(fault(nil))
			close(d.hang)
			before := stored(t, d.dir)
			time.Sleep(11 * time.Second)
			e.same(t, m, "c")
			time.Sleep(500 * time.Millisecond)
			if n := stored(t, d.dir) - before; n < size>>17 {
				t.Errorf("well again, it stores %d blocks of %d", n, size>>17)
			}
			if c.says && !strings.Contains(m.log.String(), "is used again") {
				t.Errorf("that it is used again is not said:\n%s", m.log)
			}
			m.stop()
		})
	}
}

// A cache directory whose files are cut, swapped, or gone under the daemon
// gives no wrong byte.
func TestCacheDirectoryUnderAttack(t *testing.T) {
	const size = 4 << 20
	for name, attack := range map[string]func(dir string, data []string) error{
		"gone": func(dir string, _ []string) error { return os.RemoveAll(filepath.Join(dir, "mlflowfs-v1")) },
		"cut": func(_ string, data []string) error {
			for _, f := range data {
				if err := os.Truncate(f, size/3); err != nil {
					return err
				}
			}
			return nil
		},
		"swapped": func(_ string, data []string) error {
			for _, ext := range []string{"", ".rec"} {
				if err := os.Rename(data[0]+ext, data[0]+ext+".x"); err != nil {
					return err
				}
				if err := os.Rename(data[1]+ext, data[0]+ext); err != nil {
					return err
				}
				if err := os.Rename(data[0]+ext+".x", data[1]+ext); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngineFiles(t, map[string]int{"a": size, "b": size, "c": size})
			dir := t.TempDir()
			env := []string{"MLFLOWFS_CACHE_DIR=" + dir}
			m := mountAt(t, e.URL, env, "--no-passthrough")
			e.same(t, m, "a")
			e.same(t, m, "b")
			time.Sleep(300 * time.Millisecond)
			var data []string
			filepath.WalkDir(dir, func(p string, f os.DirEntry, err error) error {
				if st, serr := os.Stat(p); err == nil && serr == nil && st.Size() == size && filepath.Ext(p) == "" {
					data = append(data, p)
				}
				return err
			})
			if len(data) != 2 {
				t.Fatal(data)
			}
			if err := attack(dir, data); err != nil {
				t.Fatal(err)
			}
			for _, daemon := range []*mount{m, mountAt(t, e.URL, env)} {
				for _, f := range []string{"a", "c", "b"} {
					e.same(t, daemon, f)
				}
			}
		})
	}
}
