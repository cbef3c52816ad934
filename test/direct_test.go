package test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// direct opens a file as loaders do that read past the page cache.
func direct(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// aligned is memory that a disk can write to.
func aligned(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b
}

// fromDisk is how many bytes this process has had read from disks (proc_pid_io(5)).
func fromDisk(t *testing.T) string {
	t.Helper()
	_, after, _ := strings.Cut(readFile("/proc/self/io"), "\nread_bytes: ")
	n, _, ok := strings.Cut(after, "\n")
	if !ok {
		t.Fatal("the system does not count")
	}
	return n
}

// TestDirectReadsAreServedFromMemory fails when a program that opens a complete file with
// O_DIRECT waits for the disk, reads other bytes, can't map the file, or keeps the kernel
// from reading it by itself for others.
func TestDirectReadsAreServedFromMemory(t *testing.T) {
	needsRoot(t, "passthrough needs it")
	const size = 16<<20 + 12345
	e := newEngineFiles(t, map[string]int{"big": size})
	m := mountAt(t, e.URL, nil, count.Logged...)
	path := m.path("runs", e.run, "big")
	want, err := os.ReadFile(filepath.Join(e.dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	e.same(t, m, "big")
	settled(func() int64 { return int64(m.cache().OriginRequests) })
	passed, err := os.Open(path) // the kernel reads it by itself
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	for _, beside := range []bool{true, false} {
		if !beside {
			passed.Close()
		}
		f := direct(t, path)
		buf := aligned(t, 1<<20)
		before, asked := fromDisk(t), m.reads().Bytes
		for off := int64(0); off < size; off += int64(len(buf)) {
			n, err := f.ReadAt(buf, off)
			if n < len(buf) && off+int64(n) != size || !bytes.Equal(buf[:n], want[off:off+int64(n)]) {
				t.Fatalf("%d bytes at %d, %v", n, off, err)
			}
		}
		if after := fromDisk(t); after != before {
			t.Errorf("the disk was read: %s bytes, and before %s", after, before)
		}
		if n := m.reads().Bytes - asked; n < size || n > size+2<<20 {
			t.Errorf("%d bytes were asked for of %d", n, size)
		}
		for kind, flag := range map[string]int{"shared": unix.MAP_SHARED, "private": unix.MAP_PRIVATE} {
			b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, flag)
			if err != nil {
				t.Errorf("a %s map, beside another open %v: %v", kind, beside, err)
				continue
			}
			if !bytes.Equal(b, want) {
				t.Errorf("a %s map has other bytes", kind)
			}
			unix.Munmap(b)
		}
		f.Close()
	}
	before := m.reads().Bytes
	e.same(t, m, "big")
	if n := m.reads().Bytes - before; n > 0 {
		t.Errorf("%d bytes were asked for that the kernel can read by itself", n)
	}
}

// controlBlock is the kernel's struct iocb (io_submit(2)).
type controlBlock struct {
	_          uint64
	_, _       uint32
	_          uint16 // 0: a read
	_          int16
	fd         uint32
	buf, bytes uint64
	offset     int64
	_          uint64
	_, _       uint32
}

// TestDirectReadsAreOnTheirWayTogether fails when of sixteen reads that a program has
// begun past the page cache the daemon is told of fewer before one has been answered.
func TestDirectReadsAreOnTheirWayTogether(t *testing.T) {
	t.Parallel()
	const reads, step, piece = 16, 2 << 20, 128 << 10
	e := newEngineFiles(t, map[string]int{"big": reads * step})
	want, err := os.ReadFile(filepath.Join(e.dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	m := mountAt(t, e.URL, nil, append([]string{"--fill-limit", "0"}, count.Logged...)...)
	f := direct(t, m.path("runs", e.run, "big"))
	let := make(chan struct{})
	e.Break(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, artifactsAPI+"/") {
			<-let
		}
		return false
	}, nil)
	var context uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, reads, uintptr(unsafe.Pointer(&context)), 0); errno != 0 {
		t.Fatal(errno)
	}
	defer unix.Syscall(unix.SYS_IO_DESTROY, context, 0, 0)
	buf := aligned(t, reads*piece)
	blocks, each := make([]controlBlock, reads), make([]*controlBlock, reads)
	for i := range blocks {
		blocks[i] = controlBlock{fd: uint32(f.Fd()), buf: uint64(uintptr(unsafe.Pointer(&buf[i*piece]))), bytes: piece, offset: int64(i) * step}
		each[i] = &blocks[i]
	}
	begun := make(chan syscall.Errno, 1)
	go func() { // a kernel that has them one after the other keeps who submits them
		n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, context, reads, uintptr(unsafe.Pointer(&each[0])))
		if errno == 0 && n != reads {
			errno = syscall.EAGAIN
		}
		begun <- errno
	}()
	settled(func() int64 { return int64(m.reads().Requests) })
	n := m.reads().Requests
	close(let)
	if n < reads {
		t.Errorf("the daemon was told of %d of %d reads", n, reads)
	}
	if errno := <-begun; errno != 0 {
		t.Fatal(errno)
	}
	type event struct {
		data, obj uint64
		res, res2 int64
	}
	events := make([]event, reads)
	if n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, context, reads, reads, uintptr(unsafe.Pointer(&events[0])), 0, 0); errno != 0 || n != reads {
		t.Fatal(n, errno)
	}
	runtime.KeepAlive(each)
	for i := range blocks {
		if events[i].res != piece {
			t.Errorf("a read gives %d", events[i].res)
		}
		if !bytes.Equal(buf[i*piece:(i+1)*piece], want[i*step:i*step+piece]) {
			t.Errorf("read %d has other bytes", i)
		}
	}
}
