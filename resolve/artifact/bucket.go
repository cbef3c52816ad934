package artifact

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Bucket is a bucket of an object store as gocloud.dev/blob opens it, with
// what gocloud leaves to each store: keys as they are (gocloud escapes some),
// validators, and the pinning of a read to one of them.
type Bucket struct {
	*blob.Bucket
	Settings rest.Settings

	// BeforeList makes a listing ask for the prefix as it is.
	BeforeList func(as func(any) bool, prefix string) error
	// Object gives a listed object's own key and its validator.
	Object func(*blob.ListObject) (key, version string)
	// BeforeRead makes a read ask for the key as it is and, where version is
	// not empty, for that content and no other.
	BeforeRead func(as func(any) bool, key, version string) error
	// Answer tells what the store says of what is being read.
	Answer func(*blob.Reader) Answer
	// Refusal is the store's HTTP status with its code and words, or 0 where
	// err is not an answer of the store's.
	Refusal func(err error) (status int, code, words string)

	// Shallow says that a directory may be listed, and all that is below it may not.
	Shallow bool

	// Again tells whether err has taught something with which the store may be
	// asked once more; nil where nothing can.
	Again func(err error) bool

	// ReadRaw reads a key that gocloud can't name; nil where it can name all.
	ReadRaw func(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, Answer, error)

	asked atomic.Int64 // when, in nanoseconds since 1970
}

// OpenBucket opens a bucket of one scheme. place is what stands between // and
// the next slash of a URI. An error that is a [NoCredentials] says that the
// client has no credentials for it.
type OpenBucket func(ctx context.Context, place string) (*Bucket, error)

// OpenLent opens a bucket as [OpenBucket] does, but with credentials that are lent, and
// with none of the client's own; they go to the hosts to which the client's own would go.
// It is an error where they are another cloud's.
type OpenLent func(ctx context.Context, place string, with rest.Lent) (*Bucket, error)

// Answer is what the headers of an object's bytes say.
type Answer struct {
	ContentRange string // as in RFC 9110; empty where the whole object came
	Size         int64  // bytes, of the object
	Version      string
	cache.Sums
}

// Connect makes a connection to the store, where it was not asked for idle. It asks for
// what it then does not wait for: once the transport dials, it dials for whoever comes
// next (net/http.Transport keeps what a request that was given up has dialled). Where
// there is a connection all the same, the store gives an answer to nobody.
func (b *Bucket) Connect(ctx context.Context, idle time.Duration) {
	now, last := time.Now().UnixNano(), b.asked.Load()
	if now-last < int64(idle) || !b.asked.CompareAndSwap(last, now) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.ListPage(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(string, string) { cancel() },
	}), blob.FirstPageToken, 1, &blob.ListOptions{BeforeList: func(as func(any) bool) error { return b.BeforeList(as, "") }})
}

// twice asks once, and again where the first answer says how.
func (b *Bucket) twice(ask func() error) error {
	b.asked.Store(time.Now().UnixNano())
	err := ask()
	if err != nil && b.Again != nil && b.Again(err) {
		err = ask()
	}
	return err
}

func (b *Bucket) read(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, Answer, error) {
	if b.ReadRaw != nil {
		return b.ReadRaw(ctx, key, version, off, n)
	}
	r, err := b.NewRangeReader(ctx, key, off, n, &blob.ReaderOptions{
		BeforeRead: func(as func(any) bool) error { return b.BeforeRead(as, key, version) },
	})
	if err != nil {
		return nil, Answer{}, err
	}
	return r, b.Answer(r), nil
}

// ErrNoBucket says that a bucket or container is not there, as opposed to a
// place in it that nothing was written to. It is an fs.ErrNotExist.
var ErrNoBucket error = noBucket{}

type noBucket struct{}

func (noBucket) Error() string        { return "no such bucket" }
func (noBucket) Is(target error) bool { return target == fs.ErrNotExist }

// NoCredentials says why a store can't be asked with credentials of the
// client's own, and where it looks for them. It is an fs.ErrPermission.
type NoCredentials string

func (n NoCredentials) Error() string { return string(n) }

// Is matches fs.ErrPermission.
func (n NoCredentials) Is(target error) bool { return target == fs.ErrPermission }

var _ error = NoCredentials("")

// ErrDriver is a version of gocloud that does not show what it sends.
var ErrDriver = errors.New("the object store's driver does not show its request")

// credentialsPatience bounds the search for credentials: the last place where
// the SDKs look is a metadata service that only cloud machines have.
const credentialsPatience = 10 * time.Second

// WatchCredentials watches the search for credentials, which what names in an
// error.
func WatchCredentials(ctx context.Context, set rest.Settings, what string) *rest.Watch {
	set.Silence = min(set.Silence, credentialsPatience)
	return set.Watch(ctx, what)
}
