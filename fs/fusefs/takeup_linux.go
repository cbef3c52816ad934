package fusefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// Session gives the session of a mount, for a process that is to outlive this one. The
// files stay the mount's: who keeps them duplicates them.
func (m *Mounted) Session() Session {
	return Session{Device: m.server.(*connection).device, File: m.a.file.Descriptor()}
}

// LetGo ends the answering, for another daemon to take up the session: what the kernel has
// asked and was not answered is in the session, and this process changes that no more. The
// mount stays, and Unmount does nothing. An error says that this process goes on.
func (m *Mounted) LetGo() error {
	if err := m.server.(*connection).letGo(m.a); err != nil {
		return err
	}
	m.once.Do(m.stop)
	return nil
}

// CheckSession tells why [TakeUp] would not take a session up; it changes nothing, and may be
// called while another daemon answers.
func CheckSession(s Session, opt MountOptions) error {
	return sessionfile.Check(s.File, scopeOf(opt))
}

// TakeUp goes on with a session that another daemon has let go of, or has left by its end. It
// returns when the mount is answered. An error says that the session can't be taken up, and
// that nothing has been answered. The session's files stay the caller's.
func TakeUp(point string, root *fs.Node, s Session, opt MountOptions) (*Mounted, error) {
	device, err := duplicate(s.Device)
	if err != nil {
		return nil, err
	}
	file, err := sessionfile.Open(s.File, scopeOf(opt))
	if err != nil {
		device.Close()
		return nil, err
	}
	opt = opt.withDefaults()
	a := newAdapter(point, root, opt, file)
	c, err := resume(point, device, a, opt.fuse())
	if err != nil {
		file.Close()
		return nil, err
	}
	a.names.rememberAgain()
	a.keep()
	a.links.keep(a)
	again, err := c.unanswered()
	if err != nil {
		device.Close()
		file.Close()
		return nil, err
	}
	c.goOn(a)
	c.redo(again)
	file.CountTakeover()
	return a.start(c, point), nil
}

// duplicate gives a file another descriptor.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("the session's descriptors can't be duplicated: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// agreement is the INIT request and its answer, as a session has them.
func agreement(in, out []byte) []byte {
	return append(append(binary.LittleEndian.AppendUint16(nil, uint16(len(in))), in...), out...)
}

// resume makes the connection of a session, as the kernel and the first daemon agreed.
func resume(point string, device *os.File, a *adapter, o *fuse.MountOptions) (*connection, error) {
	const header = int(unsafe.Sizeof(fuse.OutHeader{}))
	agreed := a.file.Init()
	var in, out []byte
	if len(agreed) > 2 {
		n := 2 + int(binary.LittleEndian.Uint16(agreed))
		if n <= len(agreed) {
			in, out = agreed[2:n:n], agreed[n:]
		}
	}
	if len(in) < int(unsafe.Offsetof(fuse.InitIn{}.Unused)) || len(out) < header+int(unsafe.Offsetof(fuse.InitOut{}.MaxStackDepth)) {
		device.Close()
		return nil, fmt.Errorf("%w: it does not tell what was agreed on with the kernel", sessionfile.ErrDamaged)
	}
	reply := *(*fuse.InitOut)(unsafe.Pointer(&append(out[header:len(out):len(out)], make([]byte, 128)...)[0]))
	o.MaxWrite, o.DisabledCapabilities = int(reply.MaxWrite), ^reply.Flags64()
	c, err := connect(point, device, a, o)
	if err != nil {
		return nil, err
	}
	if _, status := c.protocol.HandleRequest([][]byte{in}, [][]byte{make([]byte, smallAnswer)}); !status.Ok() {
		device.Close()
		return nil, fmt.Errorf("what was agreed on with the kernel is not understood: %w", syscall.Errno(status))
	}
	c.minor = (*fuse.InitIn)(unsafe.Pointer(&in[0])).Minor
	return c, nil
}

// letGo has this process answer no more, and change nothing in the session. Requests that
// wait for something go on waiting, and tell nobody.
func (c *connection) letGo(a *adapter) error {
	c.pause()
	c.answering.Lock()
	defer c.answering.Unlock()
	a.names.mu.Lock()
	defer a.names.mu.Unlock()
	a.handles.mu.Lock()
	defer a.handles.mu.Unlock()
	if c.left {
		return errors.New("the session has been let go of already")
	}
	if err := c.file.Detach(); err != nil {
		c.stopping.Store(false)
		c.begin()
		return err
	}
	c.left, a.names.left = true, true
	a.session.server.Store(nil)
	c.once.Do(func() { close(c.gone) })
	return nil
}

// unanswered are the slots of requests that are not answered, which no loop has from now on.
func (c *connection) unanswered() ([]int, error) {
	used, err := c.file.Used()
	c.slots.left = slotsBut(used)
	return used, err
}

// redo has requests answered which another daemon took, and did not answer. An INTERRUPT is
// of one of those, each of which is taken for interrupted (redoneSoon).
func (c *connection) redo(slots []int) {
	for _, slot := range slots {
		in := append([]byte(nil), c.file.Slot(slot)...)
		head := (*fuse.InHeader)(unsafe.Pointer(&in[0]))
		if int(head.Length) < int(unsafe.Sizeof(*head)) || head.Opcode == opInterrupt {
			c.file.Free(slot)
			c.slots.free(slot)
			continue
		}
		c.again(in, slot)
	}
}

// redoneSoon is how long a request that is answered again may take until it is taken for one
// that its program would rather not wait for: the kernel does not say that twice.
const redoneSoon = 100 * time.Millisecond

// interrupt has a request be one for which an INTERRUPT came.
func (c *connection) interrupt(unique uint64) {
	in := fuse.InterruptIn{InHeader: fuse.InHeader{Opcode: opInterrupt}, Unique: unique}
	in.Length = uint32(unsafe.Sizeof(in))
	c.protocol.HandleRequest([][]byte{bytesOf(&in)}, [][]byte{make([]byte, smallAnswer)})
}

// again has one request answered. What is not whole in its slot is none that this mount
// answers but by an error.
func (c *connection) again(in []byte, slot int) {
	head := (*fuse.InHeader)(unsafe.Pointer(&in[0]))
	c.loops.Add(1)
	go func() {
		defer c.loops.Done()
		defer c.slots.free(slot)
		if int(head.Length) <= len(in) {
			late := time.AfterFunc(redoneSoon, func() { c.interrupt(head.Unique) })
			defer late.Stop()
			c.answer(in[:head.Length], slot)
			return
		}
		if head.Opcode != opBatchForget {
			out := refusal(head.Unique, fuse.EIO)
			c.write(bytesOf(&out))
		}
		c.file.Free(slot)
	}()
}
