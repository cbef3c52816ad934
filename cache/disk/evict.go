package disk

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// candidate is a content that may be evicted.
type candidate struct {
	name Name
	last int64 // see lastUse
}

const (
	candidateSize  = 40                // bytes, in memory and in the file
	candidateBytes = 3 * candidateSize // of memory, while the index is made and written
	orphanAge      = time.Minute
	shards         = 256
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
// left. What is pinned stays, and what this process has open. The lock is held.
func (d *Dir) evict(target int64) error {
	k := &d.keeper
	if !k.loaded {
		k.loaded = true
		k.index = d.readIndex()
	}
	for scanned := false; d.Used() > target && !k.isEnded(); {
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
		if d.busy(c.name) || d.isPinned(c.name) {
			continue
		}
		st, err := d.root.Lstat(c.name.record())
		if err == nil && lastUse(st) == c.last { // else it was used since
			_, err = d.remove(c.name)
		}
		if ignoreMissing(err) != nil {
			return err
		}
	}
	return nil
}

// eachShard calls f with what lies in each directory AB below prefix, of those in
// which the files of a name that begins with the byte AB are.
func (d *Dir) eachShard(prefix string, f func(shard int, entries []fs.DirEntry) error) error {
	for i := range shards {
		if d.keeper.isEnded() {
			return os.ErrClosed
		}
		entries, err := d.readDir(fmt.Sprintf("%s%02x", prefix, i), 0)
		if err == nil && len(entries) > 0 {
			err = f(i, entries)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scan is a look at the whole directory.
type scan struct {
	d            *Dir
	pins         bool        // there are some
	oldest       []candidate // those used longest ago; the room in it, and up to half of it, is for more
	used, pinned int64
}

// scan counts what is there, removes what belongs to no content, and makes the
// index anew. Nobody waits for it. The lock is held.
func (d *Dir) scan() error {
	r := &d.room
	pins, err := d.readDir(pinsDir, 1)
	if err != nil {
		return err
	}
	s := scan{d: d, pins: len(pins) > 0, oldest: make([]candidate, 0, 2*max(d.opt.Memory/candidateBytes, 1))}
	r.mu.Lock()
	r.unseen = 0
	r.mu.Unlock()
	err = d.eachShard("", func(shard int, entries []fs.DirEntry) error {
		r.mu.Lock()
		r.scanned = shard + 1
		r.mu.Unlock()
		return s.shard(shard, entries)
	})
	r.mu.Lock()
	r.scanned = 0
	if err == nil { // what differs from the count so far is counted as this process's
		r.own = counts{s.used + r.unseen - r.all.used, s.pinned - r.all.pinned, tidyEvery + 1 - r.all.answers}
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	s.cut()
	d.keeper.index, d.keeper.loaded = slices.Clone(s.oldest), true
	return d.writeIndex(d.keeper.index)
}

// found is the files of one name.
type found struct {
	record os.FileInfo // nil: there is none
	data   []string    // paths of those with a nonce
}

// shard looks at one of the directories in which contents lie.
func (s *scan) shard(shard int, entries []fs.DirEntry) error {
	dir := fmt.Sprintf("%02x", shard)
	all := map[Name]*found{}
	for _, e := range entries {
		base, ext, _ := strings.Cut(e.Name(), ".")
		n, ok := parseName(dir + base)
		if !ok || ext == "" || !e.Type().IsRegular() {
			continue // somebody else has put it there
		}
		c := all[n]
		if c == nil {
			c = &found{}
			all[n] = c
		}
		if "."+ext != recordExt {
			c.data = append(c.data, dir+"/"+e.Name())
			continue
		}
		st, err := e.Info()
		if ignoreMissing(err) != nil {
			return err
		}
		c.record = st
	}
	for n, c := range all {
		if err := s.content(n, c); err != nil {
			return err
		}
	}
	return nil
}

// content counts one content, and removes files that are not of it.
func (s *scan) content(n Name, c *found) error {
	data := "" // the file that the record names
	switch {
	case c.record == nil:
	case len(c.data) == 1: // as it should be
		data = c.data[0]
	default:
		if l, _, err := s.d.labelOf(n); err == nil && l != nil {
			data = l.data()
		}
	}
	bytes := int64(0)
	for _, f := range c.data {
		st, err := s.d.root.Lstat(f)
		switch {
		case ignoreMissing(err) != nil:
			return err
		case err != nil:
		case f != data && isOrphan(st):
			s.d.root.Remove(f)
		default:
			bytes += onDisk(st)
		}
	}
	if c.record == nil {
		s.used += bytes
		return nil
	}
	bytes += onDisk(c.record)
	s.used += bytes
	if s.pins && s.d.isPinned(n) {
		s.pinned += bytes
		return nil
	}
	if len(s.oldest) == cap(s.oldest) {
		s.cut()
	}
	s.oldest = append(s.oldest, candidate{n, lastUse(c.record)})
	return nil
}

// cut leaves the candidates that there is room for.
func (s *scan) cut() {
	slices.SortFunc(s.oldest, func(a, b candidate) int { return cmp.Compare(a.last, b.last) })
	s.oldest = s.oldest[:min(len(s.oldest), cap(s.oldest)/2)]
}

// The file index: the candidates of the last scan, of any process.
const indexKind = "index 2"

func (d *Dir) writeIndex(index []candidate) error {
	b := make([]byte, 0, len(index)*candidateSize)
	for _, c := range index {
		b = append(b, c.name[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(c.last))
	}
	return d.writeSealed(indexFile, indexFile+newExt, indexKind, b)
}

// readIndex gives the index of the last scan; one that is damaged, or larger than
// there is memory for, is empty.
func (d *Dir) readIndex() (index []candidate) {
	b, _, err := d.readSealed(indexFile, indexKind, d.opt.Memory/candidateBytes*candidateSize)
	if err != nil {
		return nil
	}
	for ; len(b) >= candidateSize; b = b[candidateSize:] {
		index = append(index, candidate{Name(b[:32]), int64(binary.BigEndian.Uint64(b[32:]))})
	}
	return index
}
