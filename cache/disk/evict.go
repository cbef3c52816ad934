package disk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// candidate is a content, or a tree, that may be evicted.
type candidate struct {
	Name Name
	Last int64 // see lastUse
}

const (
	candidateSize  = 40                // bytes, in memory and in the file index
	candidateBytes = 3 * candidateSize // of memory, while the index is made and written
	orphanAge      = time.Minute
	shards         = 256
	indexKind      = "index 2"
)

// isAhead tells whether a time is of a clock that was wrong: a file server's may
// be ahead a little.
func isAhead(t time.Time) bool { return time.Until(t) > time.Hour }

// lastUse is when a content was used last, in nanoseconds since 1970. A time that
// lies ahead counts as long ago: else what has it would stay, and all others go.
func lastUse(record os.FileInfo) int64 {
	if isAhead(record.ModTime()) {
		return 0
	}
	return record.ModTime().UnixNano()
}

// isOrphan tells whether a file that belongs to nothing is too old for one that
// is being made.
func isOrphan(st os.FileInfo) bool { return time.Since(st.ModTime()) > orphanAge }

// evict removes what was used longest ago until no more than target bytes are
// left. What is pinned stays, what this process has open, and what a tree holds,
// which goes with that. The lock is held.
func (d *Dir) evict(target int64) error {
	k := &d.keeper
	if !k.loaded {
		k.loaded = true
		k.index = d.readIndex()
	}
	for scanned := false; d.Used() > target && d.keeper.ctx.Err() == nil; {
		if len(k.index) == 0 {
			if scanned {
				return nil
			}
			scanned = true
			if err := d.scan(); err != nil {
				return err
			}
			continue
		}
		c := k.index[0]
		k.index = k.index[1:]
		if d.busy(c.Name) || d.isPinned(c.Name) {
			continue
		}
		st, err := d.root.Lstat(c.Name.record())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = d.evictTree(c)
		case err == nil && lastUse(st) == c.Last && links(st) == 1: // else it was used since
			_, err = d.remove(c.Name)
		}
		if ignoreMissing(err) != nil {
			return err
		}
	}
	return nil
}

// walk calls f for each shard, one after the other. The lock is held.
func (d *Dir) walk(f func(shard int) error) error {
	d.room.walking(0)
	for i := range shards {
		if err := d.keeper.ctx.Err(); err != nil {
			return err
		}
		d.room.walking(i + 1)
		if err := f(i); err != nil {
			return err
		}
	}
	return nil
}

// names calls f with each name of a shard that has files below prefix, and with
// these. What has no such name is somebody else's.
func (d *Dir) names(prefix string, i int, f func(n Name, files []os.FileInfo) error) error {
	shard := fmt.Sprintf("%02x", i)
	files, err := d.readDir(prefix+shard, -1)
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return cmp.Compare(a.Name(), b.Name()) })
	for len(files) > 0 {
		base, _, _ := strings.Cut(files[0].Name(), ".")
		n := 1
		for n < len(files) && strings.HasPrefix(files[n].Name(), base+".") {
			n++
		}
		if name, ok := parseName(shard + base); ok {
			if err := f(name, files[:n]); err != nil {
				return err
			}
		}
		files = files[n:]
	}
	return nil
}

// scan is a look at the whole directory.
type scan struct {
	d            *Dir
	pins         bool        // there are some
	oldest       []candidate // those used longest ago; half of its room is for more
	used, pinned int64
}

// scan counts what is there, removes what belongs to no content, and makes the
// index anew. Nobody waits for it. The lock is held.
func (d *Dir) scan() error {
	pins, err := d.readDir(pinsDir, 1)
	if err != nil {
		return err
	}
	s := scan{d: d, pins: len(pins) > 0, oldest: make([]candidate, 0, 2*max(d.opt.Memory/candidateBytes, 1))}
	err = d.walk(func(shard int) error {
		if err := d.names("", shard, s.content); err != nil {
			return err
		}
		return d.names(treesDir+"/", shard, s.tree)
	})
	if err != nil {
		return err
	}
	d.room.found(counts{s.used, s.pinned, tidyEvery + 1})
	s.cut()
	d.keeper.index, d.keeper.loaded = slices.Clone(s.oldest), true
	b, err := binary.Append(nil, binary.BigEndian, d.keeper.index)
	if err != nil {
		return err
	}
	return d.writeSealed(indexFile, indexFile+newExt, indexKind, b)
}

// readIndex gives the index of the last scan, of any process; one that is damaged,
// or larger than there is memory for, is empty.
func (d *Dir) readIndex() []candidate {
	s, err := d.readSealed(indexFile, indexKind, d.opt.Memory/candidateBytes*candidateSize)
	index := make([]candidate, len(s.body)/candidateSize)
	if err == nil {
		_, err = binary.Decode(s.body, binary.BigEndian, index)
	}
	if err != nil {
		return nil
	}
	return index
}

// content counts a content, and removes files that are not of it.
func (s *scan) content(n Name, files []os.FileInfo) error {
	var record os.FileInfo
	var data []os.FileInfo
	dir := path.Dir(n.path())
	for _, st := range files {
		switch path.Join(dir, st.Name()) {
		case n.record():
			record = st
		case n.path(): // somebody else has put it there
		default:
			data = append(data, st)
		}
	}
	own := "" // the file that the record names
	if record != nil && len(data) == 1 {
		own = path.Join(dir, data[0].Name()) // as it should be
	} else if record != nil {
		if l, _, err := s.d.look(n); err == nil && l != nil {
			own = l.data()
		}
	}
	taken := int64(0)
	for _, st := range data {
		if p := path.Join(dir, st.Name()); p != own && isOrphan(st) {
			s.d.root.Remove(p)
			continue
		}
		taken += onDisk(st)
	}
	s.used += taken
	if record == nil {
		return nil
	}
	s.used += onDisk(record)
	if s.pins && s.d.isPinned(n) {
		s.pinned += taken + onDisk(record)
		return nil
	}
	if links(record) == 1 { // else it goes with its tree
		s.add(candidate{n, lastUse(record)})
	}
	return nil
}

func (s *scan) add(c candidate) {
	if len(s.oldest) == cap(s.oldest) {
		s.cut()
	}
	s.oldest = append(s.oldest, c)
}

// cut leaves the candidates that there is room for.
func (s *scan) cut() {
	slices.SortFunc(s.oldest, func(a, b candidate) int { return cmp.Compare(a.Last, b.Last) })
	s.oldest = s.oldest[:min(len(s.oldest), cap(s.oldest)/2)]
}
