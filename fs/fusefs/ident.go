package fusefs

import (
	"context"
	"encoding/binary"
	"syscall"

	"github.com/cespare/xxhash/v2"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// ident is what an inode's number is made of: two hashes of its path in the mount
// and of what tells its content from others by that path: whether it is a file, its
// size, the Node's Stamp, and how often it was found to have changed. So the
// kernel never has pages of two contents for one inode, and who reads the old
// one goes on with that. The number is the same in each mount of the tree, for a
// program such as a backup knows a file by it, without a table of all names ever
// seen. Two are one inode only if 128 bits agree; among a million files, two have one
// number, which is the first hash, with a probability of 3 in 100 million.
type ident [2]uint64

// ident gives the ident of n as i's child by that name, which was found to have changed turn
// times before.
func (i *inode) ident(name string, n *fs.Node, turn uint32) ident {
	var id ident
	for k := range id {
		h := xxhash.NewWithSeed(uint64(k))
		var b [40]byte
		for at, v := range []uint64{i.id[0], i.id[1], uint64(mode(n)), uint64(n.Size), uint64(turn)} {
			binary.LittleEndian.PutUint64(b[8*at:], v)
		}
		h.Write(b[:])
		h.WriteString(name + "\x00" + n.Stamp + "\x00" + n.Link) // a link that moves is another link
		id[k] = h.Sum64()
	}
	return id
}

func (id ident) number() uint64 {
	ino := id[0]
	if ino < 2 || ino == ^uint64(0) { // 0 is automatic, 1 the root, all ones reserved
		ino += 2
	}
	return ino
}

// generation tells an inode from another of the same number. The kernel keeps 32 bits.
func (id ident) generation() uint64 { return id[1] & (1<<32 - 1) }

// entry tells the kernel of n as the child of i by that name: of the inode that it
// knows already by the ident, which has n from now on, or of a new one. since is how many
// anews there were when n was asked for.
func (i *inode) entry(ctx context.Context, since uint64, name string, n *fs.Node, out *fuse.EntryOut) syscall.Errno {
	child, errno := i.a.names.tell(i, name, n)
	if errno != 0 {
		return errno
	}
	defer child.done()
	if n.Moves {
		i.a.links.touch(child, n.TTL)
	}
	if n.Anew {
		i.anew(ctx, n.Link)
	}
	child.fill(n, out)
	i.a.doubtful(since, out)
	return 0
}

// itself tells the kernel of i, or of its directory (".."), which it knows by a handle that a
// program has had since (FUSE_EXPORT_SUPPORT).
func (i *inode) itself(r request, name string, out *fuse.EntryOut) syscall.Errno {
	at := i
	if name == ".." && i.parent != 0 {
		if at = i.a.names.use(i.a, i.parent); at == nil {
			return syscall.ESTALE
		}
		defer at.done()
		if errno := at.resolves(r); errno != 0 {
			return errno
		}
	}
	if at != i.a.root && !i.a.names.again(at.number) {
		return syscall.ESTALE
	}
	at.fill(at.get(), out)
	return 0
}

// fill fills an answer that tells of i, which is n.
func (i *inode) fill(n *fs.Node, out *fuse.EntryOut) {
	out.SetEntryTimeout(n.TTL)
	if _, grows := n.File.(fs.Growing); !grows {
		out.SetAttrTimeout(n.TTL)
	}
	out.NodeId, out.Generation = i.number, i.id.generation()
	i.attr(n, &out.Attr)
}

// outdated has the next look-up of i's name give another inode.
func (i *inode) outdated() {
	i.mu.Lock()
	known := i.stale
	i.stale = true
	i.mu.Unlock()
	if !known {
		i.a.names.setStale(i)
	}
}

func (i *inode) isStale() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stale
}
