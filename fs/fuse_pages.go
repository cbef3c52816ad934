package fs

import (
	"context"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// mount is go-fuse's Mount, of a tree whose files are told which reads fill the
// kernel's page cache: see [fillsPages].
func mount(point string, top *inode, o *gofs.Options) (*fuse.Server, error) {
	server, err := fuse.NewServer(tellingReads{gofs.NewNodeFS(top, o)}, point, &o.MountOptions)
	if err != nil {
		return nil, err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, err
	}
	return server, nil
}

// tellingReads is go-fuse's tree. That gives a file neither a read's flags nor
// anything else of it but who asks, of which nobody wants the group.
type tellingReads struct{ fuse.RawFileSystem }

// pageRead is no group's number.
const pageRead = ^uint32(0)

func (r tellingReads) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if in.ReadFlags&fuse.READ_LOCKOWNER == 0 { // fuse_direct_io in the kernel sets it
		in.Gid = pageRead
	}
	return r.RawFileSystem.Read(cancel, in, buf)
}

// fillsPages tells whether a read is the kernel's own, for its page cache: of a map, a
// sendfile, or a cached file.
func fillsPages(ctx context.Context) bool {
	c, ok := fuse.FromContext(ctx)
	return ok && c.Gid == pageRead
}
