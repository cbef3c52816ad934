package sftp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// connection is one of SSH, with sessions of SFTP: a server answers the requests of a
// session in order, so that names are asked for by one of their own, which waits for no
// file.
type connection struct {
	conn   *rest.Conn
	client *ssh.Client
	names  *session
	most   int64         // bytes of a listing
	ended  chan struct{} // closed when the connection has ended

	mu     sync.Mutex // guards what follows
	files  []*session // by which files are read: one, and more as there is use for them
	coming int        // of them, those on their way
}

// session is a session of SFTP, whose listings have an end.
type session struct {
	*sftp.Client
	io.Reader
	open int   // files; guarded by connection.mu
	most int64 // bytes of a listing

	mu    sync.Mutex // guards what follows
	lists map[*listing]bool
}

// listing is one on its way.
type listing struct {
	left int64 // bytes that may still come
	end  func()
}

func (s *session) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.lists {
		if l.left -= int64(n); l.left < 0 {
			l.end()
		}
	}
	return n, err
}

// limit has end called once more than most has come, until done is.
func (s *session) limit(end func()) (done func()) {
	l := &listing{s.most, end}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists[l] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.lists, l)
	}
}

// session begins one (draft-ietf-secsh-filexfer-02, 2).
func (c *connection) session() (*session, error) {
	channel, err := c.client.NewSession()
	if err != nil {
		return nil, err
	}
	s := &session{lists: map[*listing]bool{}, most: c.most}
	to, err1 := channel.StdinPipe()
	from, err2 := channel.StdoutPipe()
	s.Reader = from
	if err := cmp.Or(err1, err2, channel.RequestSubsystem("sftp")); err != nil {
		return nil, err
	}
	s.Client, err = sftp.NewClientPipe(s, to)
	return s, err
}

// maxSessions is how many sessions read files, at most: each has 2 MiB on its way, which is
// what fills a link of 1 Gbit/s over 16 ms. A server has ten for a connection (MaxSessions
// of sshd_config(5)), if it is not told otherwise.
const maxSessions = 4

// forFile is the session by which another file is read, until done is called: a new one,
// where each has a file already and there may be more.
func (c *connection) forFile() (_ *session, done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.least().open > 0 && len(c.files)+c.coming < maxSessions {
		c.coming++
		c.mu.Unlock()
		s, err := c.session()
		c.mu.Lock()
		if err == nil { // else the server gives no more: it is on its way for ever, so that fewer are asked for
			c.files, c.coming = append(c.files, s), c.coming-1
		}
	}
	s := c.least()
	s.open++
	return s, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.open--
	}
}

// least is the session with the fewest files. c.mu is held.
func (c *connection) least() *session {
	return slices.MinFunc(c.files, func(a, b *session) int { return cmp.Compare(a.open, b.open) })
}

var _ artifact.Connection = (*connection)(nil)

var (
	errEnded   = errors.New("the connection has ended")
	errTooLong = errors.New("the listing has no end")
)

// Broken tells whether the connection has ended, and why.
func (c *connection) Broken() error {
	select {
	case <-c.ended:
		return cmp.Or(c.conn.Silence(), errEnded)
	default:
		return nil
	}
}

// Close ends the connection.
func (c *connection) Close() error { return c.client.Close() }

// ask awaits the answer to f, whose error it gives its meaning.
func ask[T any](ctx context.Context, c *connection, f func() (T, error), undo func(T)) (T, error) {
	defer c.conn.Await()()
	v, err := artifact.LetGo(ctx, f, undo)
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, io.EOF) && c.Broken() != nil {
		c.Close() // where a session has ended alone
		<-c.ended
		err = c.Broken()
	}
	return v, err
}

// attributes are what SFTP tells of a name. Version 3, which all servers speak, tells the
// time of a change in seconds.
func attributes(st os.FileInfo) artifact.Attributes {
	kind := st.Mode().Type()
	return artifact.Attributes{Type: kind, Entry: artifact.Entry{
		Name: st.Name(), IsDir: kind == fs.ModeDir, Size: st.Size(), Mtime: st.ModTime(),
		Version: fmt.Sprintf("%d-%d", st.ModTime().Unix(), st.Size()),
	}}
}

// mostListing is how long the answers to a listing, and to what is asked for beside it, may
// be, in bytes: two million names.
const mostListing = 256 << 20

// List asks for a directory.
func (c *connection) List(ctx context.Context, dir string) ([]artifact.Attributes, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.names.limit(func() { cancel(errTooLong) })()
	found, err := ask(ctx, c, func() ([]os.FileInfo, error) { return c.names.ReadDirContext(ctx, dir) }, nil)
	if err != nil {
		return nil, err
	}
	out := make([]artifact.Attributes, len(found))
	for i, st := range found {
		out[i] = attributes(st)
	}
	return out, nil
}

// Stat asks for one name.
func (c *connection) Stat(ctx context.Context, path string) (artifact.Attributes, error) {
	st, err := ask(ctx, c, func() (os.FileInfo, error) { return c.names.Stat(path) }, nil)
	if err != nil {
		return artifact.Attributes{}, err
	}
	return attributes(st), nil
}

// Real has the host follow the symbolic links of a path.
func (c *connection) Real(ctx context.Context, path string) (string, error) {
	return ask(ctx, c, func() (string, error) { return c.names.RealPath(path) }, nil)
}

// Open opens a file. What is none is not opened: a server of SFTP would wait for who
// writes to a pipe, and everybody for the server.
func (c *connection) Open(ctx context.Context, path string) (artifact.File, error) {
	if a, err := c.Stat(ctx, path); err != nil {
		return nil, err
	} else if a.Type != 0 {
		return nil, fmt.Errorf("it is no regular file: %w", fs.ErrNotExist)
	}
	f, err := ask(ctx, c, func() (*file, error) { return c.open(path) }, func(f *file) { f.Close() })
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (c *connection) open(path string) (*file, error) {
	by, done := c.forFile()
	f, err := by.Open(path)
	if err != nil {
		done()
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		done()
		return nil, err
	}
	return &file{c, f, attributes(st).Entry, done}, nil
}

// file is an open file: it stays what it is when another takes its name.
type file struct {
	c     *connection
	f     *sftp.File
	entry artifact.Entry
	done  func()
}

var _ artifact.File = (*file)(nil)

func (f *file) Entry() artifact.Entry { return f.entry }

// Ahead is how many pieces are on their way at once: each is eight requests, and a
// channel of SSH has a window of 2 MiB.
func (f *file) Ahead() int { return 4 }

func (f *file) ReadAt(ctx context.Context, p []byte, off int64) error {
	_, err := ask(ctx, f.c, func() (n int, err error) {
		for n < len(p) && err == nil {
			var got int
			got, err = f.f.ReadAt(p[n:], off+int64(n))
			if n += got; got > 0 && errors.Is(err, io.EOF) {
				err = nil // a server may send less than it is asked for
			}
		}
		return n, err
	}, nil)
	if errors.Is(err, io.EOF) {
		err = cmp.Or(f.Check(ctx), io.ErrUnexpectedEOF)
	}
	return err
}

// Check asks what the file is now.
func (f *file) Check(ctx context.Context) error {
	st, err := ask(ctx, f.c, func() (os.FileInfo, error) { return f.f.Stat() }, nil)
	if err != nil {
		return err
	}
	if is := attributes(st).Version; is != f.entry.Version {
		return fmt.Errorf("%w: it was %s and is %s", cache.ErrChanged, f.entry.Version, is)
	}
	return nil
}

func (f *file) Close() error {
	defer f.done()
	return f.f.Close()
}
