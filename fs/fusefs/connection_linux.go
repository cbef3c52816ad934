package fusefs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// connection is an open /dev/fuse: requests come off it, and answers go to it. go-fuse reads
// a request and writes an answer's bytes ([fuse.ProtocolServer]); the loops are ours, since
// they must be able to stop between two requests without losing one.
//
// A loop waits for a request, and answers it itself; where no other waits any more, it begins
// one before.
type connection struct {
	point    string
	device   *os.File        // /dev/fuse
	raw      syscall.RawConn // its descriptor, which stays open while it is used
	protocol *fuse.ProtocolServer
	minor    uint32 // of the protocol's version that the kernel speaks
	file     *sessionfile.File
	slots    slots

	most     int32 // loops that may wait at once
	waiting  atomic.Int32
	stopping atomic.Bool
	loops    sync.WaitGroup
	once     sync.Once     // closes gone
	gone     chan struct{} // closed when the kernel has ended the mount
	ended    chan struct{} // closed when each request was answered, too

	requests *buffers
	answers  []*buffers // the smaller first

	// Held for reading while a request is answered, so that its slot is free if the kernel has
	// the answer; and for writing by [connection.letGo].
	answering sync.RWMutex
	left      bool // the kernel is not to be answered by this process any more; guarded by answering
}

// buffers are as long as each other.
type buffers struct {
	size int
	pool sync.Pool // *[]byte
}

func newBuffers(size int) *buffers {
	b := &buffers{size: size}
	b.pool.New = func() any {
		p := make([]byte, size)
		return &p
	}
	return b
}

// Sizes of buffers, in bytes. Most answers are small; a READ's have what it asks for.
const (
	requestRest = 4 << 10   // of a request, what stands beside its payload, and more
	smallAnswer = 16 << 10  // a path, a listing's page
	readAnswer  = 128 << 10 // a READ's, or two, four, … times as much
	answerRest  = 4 << 10   // of an answer, what stands beside its payload, at most
)

// serve mounts, and has requests answered until the mount is gone.
func serve(point string, a *adapter, o *fuse.MountOptions) (server, error) {
	fd, err := mountDevice(point, o)
	if err != nil {
		return nil, err
	}
	c, err := connect(point, os.NewFile(uintptr(fd), "/dev/fuse"), a, o)
	if err == nil {
		err = c.agree()
	}
	if err != nil {
		return nil, errors.Join(err, Unmount(point, true))
	}
	c.goOn(a)
	neverPolled(point)
	return c, nil
}

// connect makes a connection of a device that a mount was made of.
func connect(point string, device *os.File, a *adapter, o *fuse.MountOptions) (*connection, error) {
	c := &connection{
		point: point, device: device, file: a.file,
		protocol: fuse.NewProtocolServer(raw{fuse.NewDefaultRawFileSystem(), a}, o),
		most:     int32(min(max(runtime.GOMAXPROCS(0), 2), 16)) + 1,
		gone:     make(chan struct{}), ended: make(chan struct{}),
		slots: slots{left: slotsBut(nil)},
	}
	c.requests, c.answers = newBuffers(o.MaxWrite+requestRest), []*buffers{newBuffers(smallAnswer)}
	// A WRITE would have MaxWrite bytes. None comes, and most of a request's buffer is never
	// touched; but by MaxWrite the kernel tells how large its folios may be (fuse_init_file_inode).
	for size := readAnswer; ; size *= 2 {
		c.answers = append(c.answers, newBuffers(size+answerRest))
		if size >= o.MaxWrite {
			break
		}
	}
	var err error
	if c.raw, err = device.SyscallConn(); err != nil {
		device.Close()
		return nil, err
	}
	return c, nil
}

// agree answers the kernel's INIT, and notes in the session what was agreed on.
func (c *connection) agree() error {
	in := make([]byte, c.requests.size)
	n, err := c.next([][]byte{in})
	if err != nil {
		c.device.Close()
		return fmt.Errorf("the kernel does not begin: %w", err)
	}
	in, out := in[:n], make([]byte, smallAnswer)
	n, status := c.protocol.HandleRequest([][]byte{in}, [][]byte{out})
	if !status.Ok() {
		c.device.Close()
		return fmt.Errorf("the kernel and go-fuse do not agree: %w", syscall.Errno(status))
	}
	c.minor = (*fuse.InitIn)(unsafe.Pointer(&in[0])).Minor
	c.file.SetInit(agreement(in, out[:n]))
	return c.write(out[:n])
}

// goOn answers requests until the mount is gone.
func (c *connection) goOn(a *adapter) {
	var to server = c
	a.session.server.Store(&to)
	c.begin()
	go func() {
		<-c.gone
		c.loops.Wait()
		c.device.Close()
		close(c.ended)
	}()
}

// begin begins to take requests.
func (c *connection) begin() {
	c.waiting.Add(1)
	c.loops.Add(1)
	go c.loop()
}

var errStopped = errors.New("the loops are to end")

// next waits for a request, which lies in the pieces of in then: ENODEV when the mount is gone.
func (c *connection) next(in [][]byte) (n int, err error) {
	for !c.stopping.Load() {
		if cerr := c.with(func(fd int) { n, err = readv(fd, in) }); cerr != nil {
			return 0, cerr
		}
		if err != unix.EINTR && err != unix.ENOENT && err != unix.EAGAIN { // ENOENT: nobody wants it any more
			return n, err
		}
	}
	return 0, errStopped
}

// readv is readv(2), with two pieces at most.
func readv(fd int, pieces [][]byte) (int, error) {
	var iov [2]unix.Iovec
	for k, p := range pieces {
		iov[k].Base = &p[0]
		iov[k].SetLen(len(p))
	}
	n, _, errno := unix.Syscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(pieces)))
	runtime.KeepAlive(pieces)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// loop takes one request after the other. c.waiting counts it. What a request begins with lies
// in a slot of the session until it is answered.
func (c *connection) loop() {
	defer c.loops.Done()
	buf := c.requests.pool.Get().(*[]byte)
	defer c.requests.pool.Put(buf)
	slot, ok := c.slot()
	if !ok {
		c.waiting.Add(-1)
		return
	}
	defer c.slots.free(slot)
	c.file.Free(slot) // so that its page is there: the kernel fails a request that it can't copy at once
	in := [][]byte{c.file.Slot(slot), (*buf)[sessionfile.SlotSize:]}
	for {
		n, err := c.next(in)
		last := c.waiting.Add(-1) == 0
		if err != nil {
			if err != errStopped {
				c.once.Do(func() { close(c.gone) })
			}
			return
		}
		if last {
			c.begin()
		}
		copy((*buf)[:n], in[0])
		c.answer((*buf)[:n], slot)
		if c.waiting.Add(1) > c.most {
			c.waiting.Add(-1)
			return
		}
	}
}

// answer has a request answered that lies in a slot. The header stands by itself, so that a
// READ's bytes begin with a page, of which the kernel copies at once.
func (c *connection) answer(in []byte, slot int) {
	const header = int(unsafe.Sizeof(fuse.OutHeader{}))
	if op := (*fuse.InHeader)(unsafe.Pointer(&in[0])).Opcode; op == opForget || op == opBatchForget {
		c.forget(in, slot)
		return
	}
	b := c.roomFor(in)
	out := b.pool.Get().(*[]byte)
	defer b.pool.Put(out)
	head := (*out)[len(*out)-header:]
	n, status := c.protocol.HandleRequest([][]byte{in}, [][]byte{head, (*out)[:len(*out)-header]})
	if !status.Ok() { // it could not be read
		*(*fuse.OutHeader)(unsafe.Pointer(&head[0])) = refusal((*fuse.InHeader)(unsafe.Pointer(&in[0])).Unique, status)
		n = header
	}
	c.answering.RLock()
	defer c.answering.RUnlock()
	if c.left { // another daemon answers it
		return
	}
	if n > 0 {
		c.write(head, (*out)[:n-header]) // ENOENT: nobody waits for it any more
	}
	c.file.Free(slot)
}

// refusal is the answer to a request that is an error.
func refusal(unique uint64, status fuse.Status) fuse.OutHeader {
	return fuse.OutHeader{Length: uint32(unsafe.Sizeof(fuse.OutHeader{})), Status: -int32(status), Unique: unique}
}

// forget has a FORGET counted, which has no answer: by this process, or by the next daemon.
func (c *connection) forget(in []byte, slot int) {
	c.answering.RLock()
	defer c.answering.RUnlock()
	if c.left {
		return
	}
	c.file.Free(slot) // first, so that none is counted twice
	c.protocol.HandleRequest([][]byte{in}, [][]byte{make([]byte, 64)})
}

// Requests that say themselves how much they ask for (fuse_opcode in the kernel).
const (
	opForget      = 2
	opRead        = 15
	opGetxattr    = 22
	opListxattr   = 23
	opReaddir     = 28
	opInterrupt   = 36
	opIoctl       = 39
	opBatchForget = 42
	opReaddirplus = 44
)

// roomFor gives the buffers in which the answer to a request has room.
func (c *connection) roomFor(in []byte) *buffers {
	size := uint32(0)
	switch op := (*fuse.InHeader)(unsafe.Pointer(&in[0])).Opcode; {
	case (op == opRead || op == opReaddir || op == opReaddirplus) && len(in) >= int(unsafe.Sizeof(fuse.ReadIn{})):
		size = (*fuse.ReadIn)(unsafe.Pointer(&in[0])).Size
	case (op == opGetxattr || op == opListxattr) && len(in) >= int(unsafe.Sizeof(fuse.GetXAttrIn{})):
		size = (*fuse.GetXAttrIn)(unsafe.Pointer(&in[0])).Size
	case op == opIoctl && len(in) >= int(unsafe.Sizeof(fuse.IoctlIn{})):
		size = (*fuse.IoctlIn)(unsafe.Pointer(&in[0])).OutSize
	}
	for _, b := range c.answers {
		if int(size)+answerRest <= b.size {
			return b
		}
	}
	return c.answers[len(c.answers)-1] // which is more than was agreed on: go-fuse says that there is no room
}

// with uses the device's descriptor; an error says that it is closed.
func (c *connection) with(use func(fd int)) error {
	return c.raw.Control(func(fd uintptr) { use(int(fd)) })
}

// write gives the kernel one message.
func (c *connection) write(pieces ...[]byte) (err error) {
	cerr := c.with(func(fd int) {
		for again := true; again; again = err == unix.EINTR {
			if len(pieces) == 1 {
				_, err = unix.Write(fd, pieces[0])
			} else {
				_, err = unix.Writev(fd, pieces)
			}
		}
	})
	if cerr != nil {
		return unix.EBADF
	}
	return err
}

// Wait returns when the mount is gone and each request was answered.
func (c *connection) Wait() { <-c.ended }

// Unmount takes the mount away, unless somebody uses it, or it is gone.
func (c *connection) Unmount() (err error) {
	select {
	case <-c.gone:
		<-c.ended
		return nil
	default:
	}
	for try := range 5 {
		if err = Unmount(c.point, false); err == nil {
			<-c.ended
			return nil
		}
		time.Sleep(time.Duration(5<<try) * time.Millisecond)
	}
	return err
}
