package fusefs

import (
	"context"
	"encoding/binary"

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

// identify gives the ident of n as i's child by that name.
func (i *inode) identify(name string, n *fs.Node) ident {
	i.mu.Lock()
	turn := 0
	if i.entries != nil {
		turn = i.entries.turns[name]
	}
	i.mu.Unlock()
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
func (i *inode) entry(ctx context.Context, since uint64, name string, n *fs.Node, out *fuse.EntryOut) {
	id := i.identify(name, n)
	for known := i.a.names.of(id); known != nil && known.isStale(); known = i.a.names.of(id) { // i had been forgotten, and its turns with it
		i.turn(name)
		id = i.identify(name, n)
	}
	child := i.a.names.tell(i, name, id, n)
	if n.Moves {
		i.a.links.touch(child, i, name, n.TTL)
	}
	if n.Anew {
		i.anew(ctx, n.Link)
	}
	out.SetEntryTimeout(n.TTL)
	if _, grows := n.File.(fs.Growing); !grows {
		out.SetAttrTimeout(n.TTL)
	}
	i.a.doubtful(since, out)
	child.fill(n, out)
}

// fill fills the rest of an answer that tells of i, which is n.
func (i *inode) fill(n *fs.Node, out *fuse.EntryOut) {
	out.NodeId, out.Generation = i.number, i.id.generation()
	i.attr(n, &out.Attr)
}

// outdated has the next look-up of i's name give another inode.
func (i *inode) outdated() {
	i.mu.Lock()
	known := i.stale
	i.stale = true
	i.mu.Unlock()
	if parent := i.stands(); parent != nil && !known {
		parent.turn(i.name)
	}
}

// turn notes that a name of the directory was found to have changed.
func (i *inode) turn(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known().turns[name]++
}

func (i *inode) isStale() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stale
}
