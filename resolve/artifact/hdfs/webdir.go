package hdfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// webDir is a directory of a cluster by WebHDFS. A file is known as by HDFS's own protocol:
// see attributes.
type webDir struct {
	c    *webCluster
	opt  artifact.RemoteOptions
	most int // names of a directory
}

var _ artifact.Store = (*webDir)(nil)

// ID is the directory's URI, with the user.
func (d *webDir) ID() string { return strings.TrimRight(d.opt.ID, "/") }

// full is the path in the cluster of what lies at p: below the root, whatever p is.
func (d *webDir) full(p string) string {
	return path.Join("/"+d.opt.Root, path.Clean("/"+p))
}

func (d *webDir) fail(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", strings.TrimRight(strings.TrimRight(d.opt.URI, "/")+"/"+p, "/"), err)
}

// webStatus is what WebHDFS tells of a name (FileStatus).
type webStatus struct {
	Name     string `json:"pathSuffix"`
	Type     string `json:"type"` // FILE, DIRECTORY or SYMLINK
	Length   int64  `json:"length"`
	Block    int64  `json:"blockSize"`
	Modified int64  `json:"modificationTime"`
	ID       int64  `json:"fileId"`
}

func (s webStatus) entry() artifact.Entry {
	if s.Type == "DIRECTORY" {
		return artifact.Entry{Name: s.Name, IsDir: true}
	}
	e := artifact.Entry{Name: s.Name, Size: s.Length, Mtime: time.UnixMilli(s.Modified)}
	if s.ID != 0 { // a gateway to another file system has no numbers
		e.Version = s.version()
	}
	return e
}

// version tells the file from others of its path, as far as WebHDFS does.
func (s webStatus) version() string { return fmt.Sprintf("%d-%d-%d", s.ID, s.Modified, s.Length) }

// List reads the directory, page by page.
func (d *webDir) List(ctx context.Context, dir string) (artifact.Tree, error) {
	entries, err := d.list(ctx, d.full(dir))
	if err != nil {
		return nil, d.fail(dir, err)
	}
	return artifact.Tree{dir: entries}, nil
}

// errNoWebHDFS says that an answer is none of WebHDFS's: a gateway's, or a proxy's.
var errNoWebHDFS = errors.New("the answer is none of a name node's: its address may be another service's")

func (d *webDir) list(ctx context.Context, at string) (entries []artifact.Entry, err error) {
	query, seen := url.Values{}, 0
	for {
		var page struct {
			Listing struct {
				Part struct {
					Statuses *struct {
						Of []webStatus `json:"FileStatus"`
					} `json:"FileStatuses"`
				} `json:"partialListing"`
				Remaining int64 `json:"remainingEntries"`
			} `json:"DirectoryListing"`
		}
		if err := d.c.answer(ctx, at, "LISTSTATUS_BATCH", query, &page); err != nil {
			return nil, err
		}
		if page.Listing.Part.Statuses == nil {
			return nil, errNoWebHDFS
		}
		found := page.Listing.Part.Statuses.Of
		seen += len(found)
		for _, s := range found {
			switch {
			case s.Name == "":
				return nil, fmt.Errorf("it is no directory: %w", fs.ErrNotExist)
			case s.Type != "FILE" && s.Type != "DIRECTORY":
				d.opt.Log.Warn("an entry of a listing is left out: it is neither a file nor a directory", "directory", d.opt.URI, "name", s.Name)
			default:
				entries = append(entries, s.entry())
			}
		}
		if page.Listing.Remaining <= 0 {
			return entries, nil
		}
		if len(found) == 0 || found[len(found)-1].Name <= query.Get("startAfter") {
			return nil, errors.New("the name node's listing does not go on")
		}
		if seen > d.most {
			return nil, fmt.Errorf("the directory has more than %d names", d.most)
		}
		query.Set("startAfter", found[len(found)-1].Name)
	}
}

// Stat asks for the one name.
func (d *webDir) Stat(ctx context.Context, p string) (artifact.Entry, error) {
	s, err := d.stat(ctx, d.full(p))
	if err != nil {
		return artifact.Entry{}, d.fail(p, err)
	}
	e := s.entry()
	e.Name = path.Base(path.Clean("/" + p))
	return e, nil
}

func (d *webDir) stat(ctx context.Context, at string) (webStatus, error) {
	var said struct {
		Status *webStatus `json:"FileStatus"`
	}
	if err := d.c.answer(ctx, at, "GETFILESTATUS", nil, &said); err != nil {
		return webStatus{}, err
	}
	if said.Status == nil || said.Status.Type == "" {
		return webStatus{}, errNoWebHDFS
	}
	if t := said.Status.Type; t != "FILE" && t != "DIRECTORY" {
		return webStatus{}, fmt.Errorf("it is neither a file nor a directory: %w", fs.ErrNotExist)
	}
	return *said.Status, nil
}

// ReadRange asks for a range of a file.
func (d *webDir) ReadRange(ctx context.Context, file string, off, n int64, validator string) (*cache.Body, error) {
	at := d.full(file)
	body, err := d.read(ctx, at, off, n, validator)
	if validator != "" && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: it is there no more", cache.ErrChanged)
	}
	return body, d.fail(file, err)
}

func (d *webDir) read(ctx context.Context, at string, off, n int64, validator string) (*cache.Body, error) {
	if validator == "" {
		s, err := d.stat(ctx, at)
		if err != nil {
			return nil, err
		}
		if s.Type == "DIRECTORY" {
			return nil, fmt.Errorf("it is no file: %w", fs.ErrNotExist)
		}
		validator = s.version()
	}
	b := &webBody{d: d, ctx: ctx, at: at, off: off, left: n, validator: validator}
	size, err := b.next()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(validator, "0-") {
		validator = "" // without a number it tells nothing of a later body
	}
	return &cache.Body{ReadCloser: b, Total: size, Validator: validator}, nil
}

// changed is why a file could not be opened: a range behind the end of one that is shorter
// now is an error like any other to a name node.
func (d *webDir) changed(ctx context.Context, at, validator string, err error) error {
	if ctx.Err() != nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	if s, serr := d.stat(ctx, at); serr == nil && s.version() != validator {
		return fmt.Errorf("%w: it was %s and is %s", cache.ErrChanged, validator, s.version())
	}
	return err
}

// webBody is a range of a file, of which each block of the file is asked for by itself. A
// data node finds a file's blocks by its path, some at a time: those that a range comes to
// later may be of a file that has taken the place of the first. Of one block, what the path
// names behind its first byte tells which content it is, since no two files of a cluster
// have one number.
type webBody struct {
	d         *webDir
	ctx       context.Context
	at        string
	validator string

	off, left int64             // of the range, behind piece
	piece     *io.LimitedReader // of one block

	mu     sync.Mutex // guards what follows: Close may be called beside a Read
	body   io.Closer
	closed bool
}

// holds notes the body of the next block, in the place of the one before.
func (b *webBody) holds(body io.ReadCloser) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.body != nil {
		b.body.Close()
	}
	if b.closed {
		body.Close()
		return fs.ErrClosed
	}
	b.body = body
	return nil
}

// next asks for what is left of the range, to read of it what is in one block. It gives the
// file's size.
func (b *webBody) next() (size int64, err error) {
	resp, err := b.d.c.open(b.ctx, b.at, b.off, b.left)
	if err != nil {
		return 0, b.d.changed(b.ctx, b.at, b.validator, err)
	}
	r := bufio.NewReaderSize(resp.Body, 32<<10)
	_, err = r.Peek(1)
	s, serr := b.d.stat(b.ctx, b.at)
	switch is := s.version(); {
	case serr == nil && is != b.validator:
		err = fmt.Errorf("%w: it was %s and is %s", cache.ErrChanged, b.validator, is)
	case serr != nil:
		err = serr
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	case err == nil && resp.ContentLength >= 0 && resp.ContentLength != b.left:
		err = fmt.Errorf("%s was asked for %d bytes and sends %d", resp.Request.URL.Host, b.left, resp.ContentLength)
	}
	if err != nil {
		resp.Body.Close()
		return 0, err
	}
	n := b.left
	if s.Block > 0 {
		n = min(n, s.Block-b.off%s.Block)
	}
	b.piece = &io.LimitedReader{R: r, N: n}
	b.off, b.left = b.off+n, b.left-n
	return s.Length, b.holds(resp.Body)
}

func (b *webBody) Read(p []byte) (int, error) {
	n, err := b.piece.Read(p)
	if err != io.EOF || b.left == 0 {
		return n, err
	}
	if b.piece.N > 0 {
		return n, io.ErrUnexpectedEOF // it ends in the midst of a block
	}
	if _, err := b.next(); err != nil {
		return n, b.d.fail("", err)
	}
	return n, nil
}

func (b *webBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.body.Close()
}
