package fs

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// Node is one thing in the tree. Of Dir, File and Link one is set.
type Node struct {
	Dir  Dir
	File File
	Link string // a symlink's target

	Moves bool // of a link: it may lead elsewhere some day

	// Anew says, of a link, that it was just asked for where it leads to: the kernel is to
	// believe nothing that it was told before of what lies there, and below that.
	Anew bool

	Private bool // of a directory: this user alone may look into it

	Size  int64     // bytes, of a file
	Stamp string    // tells the file's content from others by its name, where that is known
	Mtime time.Time // zero where nothing applies

	// Later says that a listing gives the name alone: what it is is found when it
	// is looked up.
	Later bool

	// TTL is how long the kernel may believe that the name leads to this
	// node, and that it is as described here.
	TTL time.Duration
}

// Dir is a directory. Both methods describe the same entries, but a Lookup
// may find what no listing shows.
type Dir interface {
	// Lookup gives one entry; io/fs.ErrNotExist where there is none.
	Lookup(ctx context.Context, name string) (*Node, error)
	// List begins a listing.
	List(ctx context.Context) (Listing, error)
}

// Settled is a Dir that may know that its entries change no more. The kernel may
// then list it from its own memory for as long as it may believe the Node.
type Settled interface {
	Settled() bool
}

// Lasting is a Dir in which a name that leads to a directory leads to that one for good.
// In another Dir it may be found to lead elsewhere by now, once a link says that what lies
// there is to be asked for anew.
type Lasting interface {
	Lasting()
}

// Listing is a directory on its way to a reader, one entry at a time. It is
// used by one goroutine at a time.
type Listing interface {
	// Next gives the next entry, or io.EOF itself, not wrapped, after the last:
	// a server that hangs up can end in an error that wraps an io.EOF.
	Next(ctx context.Context) (Entry, error)
}

// Entry is a name in a directory.
type Entry struct {
	Name string
	*Node
}

// File is a regular file.
type File interface {
	Open(ctx context.Context) (Handle, error)
}

// Growing is a File that is made as far as it is read: its size is known when the last
// of it is there. The kernel keeps no page of it, and believes nothing of its size.
type Growing interface {
	File
	// Size is the size, where it is known; else what is shown of it. It does not wait.
	Size() (n int64, known bool)
	// Grow has more than n bytes made, and waits for them. It gives how many are there
	// then, and whether these are all; ErrOutdated where an open has it made anew.
	Grow(ctx context.Context, n int64) (size int64, whole bool, err error)
}

// ErrOutdated is what an open fails with where the file is another one by now: its name
// is to be looked up anew.
var ErrOutdated = errors.New("it has been made anew since it was looked up")

// ErrTooLarge is what an open fails with where a listing gives the file a size that none
// has.
var ErrTooLarge = errors.New("it is listed with a size that no file has")

// Handle is an open file. Its methods may be called by many at once.
type Handle interface {
	// ReadAt fills p from offset off: whole, or to the file's end with io.EOF
	// itself, not wrapped, or an error and nothing.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	Close() error
}

// Identified is a Handle that knows what content it reads. Two handles of one
// name and one identity read the same bytes, so that the kernel may keep its
// pages from one to the next; a Handle without it has its pages dropped at each
// open.
type Identified interface {
	Identity() string
}

// Proven is an Identified that can tell what it reads from every other content, whichever
// process opened that: a daemon that goes on where another has ended goes on with the same
// content only.
type Proven interface {
	Identified
	// Proof is the same for the same bytes alone. It is empty where that is not known: it may
	// be after a read.
	Proof() string
}

// Described is a Dir or a File that has extended attributes, by name; each is
// shown behind "user.mlflow.".
type Described interface {
	Attributes() map[string]string
}

// entries is a listing that is known whole.
type entries []Entry

func (e *entries) Next(context.Context) (Entry, error) {
	if len(*e) == 0 {
		return Entry{}, io.EOF
	}
	first := (*e)[0]
	*e = (*e)[1:]
	return first, nil
}

var _ Listing = (*entries)(nil)

// Backed is a Handle that may have all it reads in one file of this machine,
// which then changes no more: the kernel can read that file by itself.
type Backed interface {
	// Backing is that file, open until Close; nil where there is none (yet).
	Backing() *os.File
}

// Ahead is a Handle that gets bytes before anybody asks for them: they can be
// given to the kernel's page cache.
type Ahead interface {
	// Wake has w called when there are some. w must not wait.
	Wake(w func())
	// Fresh gives such bytes once; n is 0 where there are none.
	Fresh(p []byte) (n int, off int64)
}
