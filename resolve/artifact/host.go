package artifact

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Connection is a session with the file system of a host, as one user there. Paths are
// absolute, with slashes. Its methods may be called by many at once, and let go when their
// context ends. What is not there is fs.ErrNotExist, what the user may not is
// fs.ErrPermission.
type Connection interface {
	// List gives the entries of a directory, symbolic links as such.
	List(ctx context.Context, dir string) ([]Attributes, error)

	// Stat gives what a path leads to, through symbolic links.
	Stat(ctx context.Context, path string) (Attributes, error)

	// Real is the path without symbolic links.
	Real(ctx context.Context, path string) (string, error)

	// Open opens a file for reading. It does not wait for who would write to a pipe.
	Open(ctx context.Context, path string) (File, error)

	// Broken is why the connection is of no more use; nil: it is.
	Broken() error

	Close() error
}

// Attributes are what a host says of one name.
type Attributes struct {
	Entry
	Type fs.FileMode // 0 of a file; fs.ModeDir, fs.ModeSymlink, or what else it is
}

// File is an open file of a host, for one user at a time.
type File interface {
	// Entry is what was opened. Its Version is of the kind that a listing gives.
	Entry() Entry

	// ReadAt fills p. As many calls as Ahead gives may run at once.
	ReadAt(ctx context.Context, p []byte, off int64) error
	Ahead() int

	// Check fails with cache.ErrChanged where what was read before it may be of another
	// content than that which was opened.
	Check(ctx context.Context) error

	Close() error
}

// Dial makes a connection. An error that is an fs.ErrPermission is final: it is not tried
// again.
type Dial func(ctx context.Context) (Connection, error)

// OpenHost opens the hosts of one scheme. authority is what stands between // and the next
// slash of a URI, with the user's name and password; nothing is sent yet.
type OpenHost func(authority string) (FileSystem, error)

// FileSystem is that of a host, as one user there.
type FileSystem interface {
	// Dir is the store of a directory, which need not exist yet.
	Dir(opt RemoteOptions) Store

	// Close closes what is open there, unless somebody uses it.
	Close() (closed bool)
}

var _ FileSystem = (*Host)(nil)

// Host has one connection, which all that read there share. It is made when it is first
// needed, made anew when it has broken, and closed when it was not used for a minute.
type Host struct {
	dial Dial

	mu      sync.Mutex // guards what follows
	conn    Connection // nil: none
	users   int        // of conn
	leave   *time.Timer
	dialing chan struct{} // closed when the attempt that is running ends; nil: none is
	failed  error         // of the last attempt, and when
	at      time.Time
	idle    []idleFile // the last used last
}

// idleFile is an open file that waits for its next read.
type idleFile struct {
	path string
	conn Connection
	File
	since time.Time
}

const (
	leaveAfter  = time.Minute
	maxIdle     = 32               // open files that wait for a reader
	idleFor     = 20 * time.Second // of one of them, at most
	failedFor   = time.Second      // how long an attempt to connect is the answer to all that want one
	refusedFor  = 5 * time.Second  // the same, where the host knows no such user, or is not known
	triesToDial = 4
)

// NewHost makes a host that dial leads to.
func NewHost(dial Dial) *Host { return &Host{dial: dial} }

// Dir is the store of a directory.
func (h *Host) Dir(opt RemoteOptions) Store { return NewRemote(h, opt) }

// with has f use the connection; once more where it breaks, or turns out to be broken.
func (h *Host) with(ctx context.Context, f func(Connection) error) error {
	for try := 1; ; try++ {
		c, err := h.connection(ctx)
		if err == nil {
			err = f(c)
			broken := c.Broken()
			h.release(c)
			if err == nil || broken == nil {
				return err
			}
			err = broken
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !worthAnother(err) || try == triesToDial {
			return err
		}
		select {
		case <-time.After(failedFor * time.Duration(try-1)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// worthAnother tells whether a connection that failed may be made a moment later: its
// server is being restarted, say.
func worthAnother(err error) bool {
	var t interface{ Timeout() bool }
	var name *net.DNSError
	return !(errors.As(err, &name) && name.IsNotFound) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, rest.ErrOffline) &&
		!errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) && !(errors.As(err, &t) && t.Timeout())
}

// connection gives the connection, for which release must be called.
func (h *Host) connection(ctx context.Context) (Connection, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if h.conn != nil && h.conn.Broken() != nil {
			h.drop()
		}
		switch {
		case h.conn != nil:
			h.take()
			return h.conn, nil
		case h.failed != nil && time.Since(h.at) < believed(h.failed):
			return nil, h.failed
		case h.dialing == nil:
			return h.connect(ctx)
		}
		dialing := h.dialing
		h.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
		}
		h.mu.Lock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// believed is how long nobody tries again after an attempt: each login that a host refuses
// may count there against the user.
func believed(failed error) time.Duration {
	if errors.Is(failed, fs.ErrPermission) {
		return refusedFor
	}
	return failedFor / 2
}

// connect makes the connection. h.mu is held.
func (h *Host) connect(ctx context.Context) (Connection, error) {
	h.dialing = make(chan struct{})
	h.mu.Unlock()
	c, err := h.dial(ctx)
	h.mu.Lock()
	close(h.dialing)
	h.dialing = nil
	h.failed, h.at = err, time.Now()
	if ctx.Err() != nil {
		h.failed = nil // the caller went: nothing was found out
	}
	if err != nil {
		return nil, err
	}
	h.conn = c
	h.take()
	return c, nil
}

// hold notes one more user of c, who has it already.
func (h *Host) hold(c Connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == c {
		h.users++
	}
}

// take notes a user of the connection. h.mu is held.
func (h *Host) take() {
	h.users++
	if h.leave != nil {
		h.leave.Stop()
		h.leave = nil
	}
}

// release ends the use of a connection.
func (h *Host) release(c Connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != c {
		return // which was dropped, with its users
	}
	if h.users--; h.users == 0 {
		h.leave = time.AfterFunc(leaveAfter, func() { h.Close() })
	}
}

// Close closes the connection, unless somebody uses it.
func (h *Host) Close() (closed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil && h.users == 0 {
		h.drop()
	}
	return h.conn == nil
}

// drop lets go of the connection, and of the files that are open there. h.mu is held.
func (h *Host) drop() {
	if h.leave != nil {
		h.leave.Stop()
		h.leave = nil
	}
	go h.conn.Close()
	h.conn, h.users, h.idle = nil, 0, nil
}

// idleOne gives a file that is open by c and whose content is that which validator names;
// nil where there is none.
func (h *Host) idleOne(c Connection, path, validator string) File {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, f := range slices.Backward(h.idle) {
		if f.conn == c && f.path == path && validator != "" && f.Entry().Version == validator {
			h.idle = slices.Delete(h.idle, i, i+1)
			return f.File
		}
	}
	return nil
}

// keep has an open file wait for its next read.
func (h *Host) keep(c Connection, path string, f File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != c || c.Broken() != nil {
		return // it went with its connection
	}
	h.idle = append(h.idle, idleFile{path, c, f, time.Now()})
	if len(h.idle) > maxIdle {
		go h.idle[0].Close()
		h.idle = slices.Delete(h.idle, 0, 1)
	}
	time.AfterFunc(idleFor, h.tidy)
}

// tidy closes what has waited too long.
func (h *Host) tidy() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.idle) > 0 && time.Since(h.idle[0].since) >= idleFor {
		go h.idle[0].Close()
		h.idle = slices.Delete(h.idle, 0, 1)
	}
}

// LetGo gives what f does, or lets go of it where ctx ends: f, which knows of no context,
// ends with its connection, and what it still gives is undone.
func LetGo[T any](ctx context.Context, f func() (T, error), undo func(T)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	come := make(chan answer, 1)
	go func() {
		v, err := f()
		come <- answer{v, err}
	}()
	select {
	case a := <-come:
		return a.v, a.err
	case <-ctx.Done():
		go func() {
			if a := <-come; a.err == nil && undo != nil {
				undo(a.v)
			}
		}()
		var none T
		return none, context.Cause(ctx)
	}
}
