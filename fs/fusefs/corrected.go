package fusefs

import (
	"context"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// mount is go-fuse's Mount, of a tree that is [corrected].
func mount(point string, top *inode, o *gofs.Options) (*fuse.Server, error) {
	server, err := fuse.NewServer(corrected{gofs.NewNodeFS(top, o), top.a}, point, &o.MountOptions)
	if err != nil {
		return nil, err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, err
	}
	return server, nil
}

// corrected is go-fuse's tree, with what that lacks.
type corrected struct {
	fuse.RawFileSystem
	a *adapter
}

// pageRead is no group's number.
const pageRead = ^uint32(0)

// Read tells a file which reads fill the kernel's page cache: see [fillsPages]. go-fuse
// gives it neither a read's flags nor anything else of it but who asks, of which nobody
// wants the group.
func (r corrected) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
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

// Release has a handle count as open until go-fuse is done with it. Whatever the handle,
// that gives up a use of the backing file that the inode has by then: an open which found
// the last handle closed, and had the kernel read the inode by itself, would lose its
// backing file, and another open fail.
func (r corrected) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	call := make(chan struct{})
	r.RawFileSystem.Release(call, in)
	if end, ok := r.a.releasing.LoadAndDelete((<-chan struct{})(call)); ok {
		end.(func())()
	}
}

// afterRelease has end called when go-fuse is done with the RELEASE of ctx.
func (a *adapter) afterRelease(ctx context.Context, end func()) {
	a.releasing.Store(ctx.Done(), end)
}
