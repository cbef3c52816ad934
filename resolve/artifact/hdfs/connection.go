package hdfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/colinmarc/hdfs/v2"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

var (
	_ artifact.Connection = (*connection)(nil)
	_ artifact.File       = (*file)(nil)
)

// Broken tells whether a node could not be asked: the client is not used again then, as
// it does not tell an answer that comes late from the next one.
func (c *connection) Broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// end closes what is connected.
func (c *connection) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
	default:
		close(c.done)
	}
	for conn := range c.conns {
		conn.Close()
	}
	if c.broken == nil {
		c.broken = net.ErrClosed
	}
}

// Close ends the client.
func (c *connection) Close() error {
	c.end() // the client waits for an answer else
	if c.client == nil {
		return nil
	}
	return c.client.Close()
}

// meaning gives an error its meaning: what a node answers, or that none did, which breaks
// the connection.
func (c *connection) meaning(err error) error {
	var remote hdfs.Error
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported), errors.Is(err, cache.ErrChanged):
		return err
	case errors.As(err, &remote):
		switch remote.Exception() {
		case "java.io.FileNotFoundException":
			return fs.ErrNotExist
		case "org.apache.hadoop.security.AccessControlException", "org.apache.hadoop.security.authorize.AuthorizationException":
			return fs.ErrPermission
		}
		return fmt.Errorf("the name node answers %s", remote.Exception())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		if silent := conn.Silence(); silent != nil {
			err = silent
		}
	}
	// The library tells what Kerberos says by its words alone.
	if what := err.Error(); strings.Contains(what, "SASL handshake: [Root cause: ") && !strings.Contains(what, "Networking_Error") {
		err = artifact.NoCredentials("Kerberos refuses the ticket: run `kinit`, or look whether it is of the cluster's realm: " + what)
	}
	if c.broken == nil {
		c.broken = err
	}
	return err
}

// ask gives the answer to f. Where ctx ends first, f goes on until it has one, or its
// connection ends.
func ask[T any](ctx context.Context, c *connection, f func() (T, error), undo func(T)) (T, error) {
	v, err := artifact.LetGo(ctx, f, undo)
	if err != nil && ctx.Err() == nil {
		err = c.meaning(err)
	}
	return v, err
}

// attributes are what HDFS tells of a name: the number of its file, which no other file of
// the cluster has had, is a part of its version.
func attributes(st os.FileInfo) artifact.Attributes {
	status := st.Sys().(*hdfs.FileStatus)
	kind := st.Mode().Type()
	if len(status.GetSymlink()) > 0 {
		kind = fs.ModeIrregular // which no cluster has: HADOOP-10019
	}
	return artifact.Attributes{Type: kind, Entry: artifact.Entry{
		Name: st.Name(), IsDir: kind == fs.ModeDir, Size: st.Size(), Mtime: st.ModTime(),
		Version: fmt.Sprintf("%d-%d-%d", status.GetFileId(), status.GetModificationTime(), st.Size()),
	}}
}

// maxListing is how many names a directory may have.
const maxListing = 2_000_000

// List asks for a directory.
func (c *connection) List(ctx context.Context, dir string) ([]artifact.Attributes, error) {
	found, err := ask(ctx, c, func() ([]os.FileInfo, error) {
		d, err := c.client.Open(dir)
		if err != nil {
			return nil, err
		}
		if !d.Stat().IsDir() {
			return nil, fmt.Errorf("it is no directory: %w", fs.ErrNotExist)
		}
		found, err := d.Readdir(maxListing + 1)
		if err == io.EOF {
			err = nil // it is empty
		}
		return found, err
	}, nil)
	if err != nil {
		return nil, err
	}
	if len(found) > maxListing {
		return nil, fmt.Errorf("the directory has more than %d names", maxListing)
	}
	out := make([]artifact.Attributes, len(found))
	for i, st := range found {
		out[i] = attributes(st)
	}
	return out, nil
}

// Stat asks for one name.
func (c *connection) Stat(ctx context.Context, path string) (artifact.Attributes, error) {
	st, err := ask(ctx, c, func() (os.FileInfo, error) { return c.client.Stat(path) }, nil)
	if err != nil {
		return artifact.Attributes{}, err
	}
	return attributes(st), nil
}

// Real is the path itself: there are no symbolic links.
func (c *connection) Real(_ context.Context, path string) (string, error) { return path, nil }

// Open opens a file, with a client of its own on the one connection: what a client notes
// of the cluster's keys as a file is read has no lock.
func (c *connection) Open(ctx context.Context, path string) (artifact.File, error) {
	own := *c.client
	f, err := ask(ctx, c, func() (*hdfs.FileReader, error) { return own.Open(path) }, nil)
	if err != nil {
		return nil, err
	}
	a, status := attributes(f.Stat()), f.Stat().Sys().(*hdfs.FileStatus)
	switch {
	case a.Type != 0:
		return nil, fmt.Errorf("it is no file: %w", fs.ErrNotExist)
	case status.GetFileEncryptionInfo() != nil:
		return nil, fmt.Errorf("it lies in an encryption zone, of which only Hadoop's own nodes and clients have the keys: read it by webhdfs:// or swebhdfs:// (--webhdfs): %w", errors.ErrUnsupported)
	case status.GetEcPolicy() != nil:
		return nil, fmt.Errorf("it is erasure-coded, which only Hadoop's own nodes and clients read: read it by webhdfs:// or swebhdfs:// (--webhdfs): %w", errors.ErrUnsupported)
	}
	return &file{c: c, f: f, path: path, entry: a.Entry}, nil
}

// file is an open file.
type file struct {
	c     *connection
	path  string
	entry artifact.Entry
	same  bool // its blocks are those of what was opened

	mu sync.Mutex // guards what follows: a read that was let go still goes on
	f  *hdfs.FileReader
	at int64 // where f reads on
}

func (f *file) Entry() artifact.Entry { return f.entry }

// Ahead is 1: a file comes as one stream.
func (f *file) Ahead() int { return 1 }

func (f *file) ReadAt(ctx context.Context, p []byte, off int64) error {
	_, err := ask(ctx, f.c, func() (n int, err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if off != f.at { // a Seek to where it is would end the stream
			if f.at, err = f.f.Seek(off, io.SeekStart); err != nil {
				return 0, err
			}
		}
		n, err = io.ReadFull(f.f, p)
		f.at += int64(n)
		return n, sealed(err)
	}, nil)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// sealed is the error of a read, where it may be that the data node's words are protected
// in a way that the library does not undo: its reads lose what lies across two messages of
// SASL's integrity and privacy, but not of AES, and what is lost fails a checksum. What a data
// node says, and that there is none, is an error like any other.
func sealed(err error) error {
	var network net.Error
	var answer hdfs.Error
	if err != nil && (strings.HasPrefix(err.Error(), "read failed: ") || strings.Contains(err.Error(), "no available datanodes") || strings.Contains(err.Error(), "ACCESS_TOKEN")) {
		return err
	}
	if err == nil || errors.As(err, &network) || errors.As(err, &answer) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return err
	}
	return fmt.Errorf("the data node's answer can't be read (%v): where dfs.data.transfer.protection is integrity, or privacy without AES (dfs.encrypt.data.transfer.cipher.suites), read the cluster by webhdfs:// or swebhdfs:// (--webhdfs): %w", err, errors.ErrUnsupported)
}

// Check asks once whether the path still names what was opened: the first read has asked
// for the blocks of what it named then, and a block that is written does not change.
func (f *file) Check(ctx context.Context) error {
	if f.same {
		return nil
	}
	a, err := f.c.Stat(ctx, f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it is there no more", cache.ErrChanged)
	}
	if err != nil {
		return err
	}
	if a.Version != f.entry.Version {
		return fmt.Errorf("%w: it was %s and is %s", cache.ErrChanged, f.entry.Version, a.Version)
	}
	f.same = true
	return nil
}

// Close closes the file.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.Close()
}
