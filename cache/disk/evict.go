package disk

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"encoding/hex"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// candidate is a content that may be evicted.
type candidate struct {
	name  Name
	last  int64 // when it was used last; nanoseconds since 1970
	bytes int64 // of disk
}

const (
	candidateBytes = 64 // of memory
	orphanAge      = time.Minute
)

// remove unlinks a content, and returns the bytes of disk that it took. The
// record goes first: what is left of a removal that was interrupted is an
// orphan, and no content.
func (d *Dir) remove(n Name) (freed int64, err error) {
	l, st, err := d.labelOf(n)
	if err != nil {
		return 0, ignoreMissing(err)
	}
	freed = onDisk(st)
	if err := ignoreMissing(d.root.Remove(n.path() + recordExt)); err != nil {
		return 0, err
	}
	if l != nil {
		if st, err := d.root.Lstat(l.data()); err == nil {
			freed += onDisk(st)
		}
		if err := ignoreMissing(d.root.Remove(l.data())); err != nil {
			return 0, err
		}
	}
	d.took(-freed)
	return freed, nil
}

// labelOf reads who a record is of; nil where it is damaged.
func (d *Dir) labelOf(n Name) (*label, os.FileInfo, error) {
	f, err := d.root.Open(n.path() + recordExt)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, headSize)
	got, _ := f.ReadAt(b, 0)
	l, ok := readLabel(b[:got], n)
	if !ok {
		return nil, st, nil
	}
	return &l, st, nil
}

// evict removes what was used longest ago until no more than target bytes are
// left. What is pinned stays, and what this process has open. The lock is held.
func (d *Dir) evict(target int64) error {
	k := &d.keeper
	if k.index == nil && !k.scanned {
		k.index = d.readIndex()
	}
	pinned, err := d.pins()
	if err != nil {
		return err
	}
	for scans := 0; d.Used() > target; {
		if len(k.index) == 0 {
			if scans++; scans > 1 || k.isEnded() {
				return nil
			}
			if err := d.scan(); err != nil {
				return err
			}
			if len(k.index) == 0 {
				return nil
			}
		}
		c := k.index[0]
		k.index = k.index[1:]
		if pinned[c.name] || d.busy(c.name) {
			continue
		}
		err := d.try(opMake, func() error {
			st, err := d.root.Lstat(c.name.path() + recordExt)
			if err != nil || st.ModTime().UnixNano() != c.last { // gone, or used since
				return ignoreMissing(err)
			}
			_, err = d.remove(c.name)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pins are the contents that are pinned.
func (d *Dir) pins() (map[Name]bool, error) {
	names, err := do(d, opOpen, func() ([]fs.DirEntry, error) { return d.readDir(pinsDir) }, nil)
	pinned := make(map[Name]bool, len(names))
	for _, e := range names {
		if n, ok := nameOf(e.Name()); ok {
			pinned[n] = true
		}
	}
	return pinned, err
}

func nameOf(s string) (n Name, ok bool) {
	if len(s) != 2*len(n) || strings.ToLower(s) != s {
		return n, false
	}
	_, err := hex.Decode(n[:], []byte(s))
	return n, err == nil
}

// readDir reads a directory; one that is not there is empty.
func (d *Dir) readDir(name string) ([]fs.DirEntry, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	return entries, ignoreMissing(err)
}

// scan counts what is there, removes what belongs to no content, and makes the
// index anew. The lock is held.
func (d *Dir) scan() error {
	k := &d.keeper
	k.mu.Lock()
	k.own = d.writing.Load() // the rest is on the disk by now
	k.mu.Unlock()
	pinned, err := d.pins()
	if err != nil {
		return err
	}
	// Nobody waits for a scan, and a large one takes as long as it does.
	shards, err := d.readDir(".")
	if err != nil {
		return err
	}
	s := scan{d: d, most: int(d.opt.Memory / candidateBytes), pinned: pinned}
	for _, e := range shards {
		if b, err := hex.DecodeString(e.Name()); err != nil || len(b) != 1 || !e.IsDir() {
			continue // the lock, the count, and what somebody has put there
		}
		if k.isEnded() {
			return os.ErrClosed
		}
		if err := s.shard(e.Name()); err != nil {
			return err
		}
	}
	slices.SortFunc(s.oldest, func(a, b candidate) int { return cmp.Compare(a.last, b.last) })
	k.index, k.scanned = s.oldest, true
	k.mu.Lock()
	k.scans++
	d.used.Store(s.total + k.own)
	k.mu.Unlock()
	d.pinned.Store(s.pinnedBytes)
	d.tidyAnswers()
	if err := d.writeUsage(); err != nil {
		return err
	}
	return d.writeIndex(k.index)
}

// scan is what a look at the whole directory finds.
type scan struct {
	d                  *Dir
	most               int
	pinned             map[Name]bool
	oldest             newestFirst
	total, pinnedBytes int64
}

// newestFirst is a heap of candidates, of which the newest goes first.
type newestFirst []candidate

func (h newestFirst) Len() int           { return len(h) }
func (h newestFirst) Less(i, j int) bool { return h[i].last > h[j].last }
func (h newestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *newestFirst) Push(x any)        { *h = append(*h, x.(candidate)) }
func (h *newestFirst) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// shard looks at one of the directories in which contents lie.
func (s *scan) shard(dir string) error {
	entries, err := s.d.readDir(dir)
	if err != nil {
		return err
	}
	type content struct {
		record os.FileInfo
		files  []string // that have its name and a nonce
	}
	found := map[Name]*content{}
	for _, e := range entries {
		base, ext, _ := strings.Cut(e.Name(), ".")
		n, ok := nameOf(dir + base)
		if !ok || ext == "" || !e.Type().IsRegular() {
			continue // what somebody has put there
		}
		c := found[n]
		if c == nil {
			c = &content{}
			found[n] = c
		}
		if "."+ext != recordExt {
			c.files = append(c.files, dir+"/"+e.Name())
		} else if c.record, err = e.Info(); err != nil && ignoreMissing(err) != nil {
			return err
		}
	}
	for n, c := range found {
		var data string
		if c.record != nil && len(c.files) == 1 { // as it should be
			data = c.files[0]
		} else if c.record != nil {
			if l, _, err := s.d.labelOf(n); err == nil && l != nil {
				data = l.data()
			}
		}
		bytes := int64(0)
		for _, f := range c.files {
			st, err := s.d.root.Lstat(f)
			if err != nil {
				continue
			}
			if f != data && time.Since(st.ModTime()) > orphanAge {
				s.d.root.Remove(f)
				continue
			}
			bytes += onDisk(st)
		}
		if c.record == nil {
			s.total += bytes
			continue
		}
		bytes += onDisk(c.record)
		s.total += bytes
		if s.pinned[n] {
			s.pinnedBytes += bytes
			continue
		}
		s.take(candidate{name: n, last: c.record.ModTime().UnixNano(), bytes: bytes})
	}
	return nil
}

// take keeps c if it is one of the oldest.
func (s *scan) take(c candidate) {
	if len(s.oldest) < s.most {
		heap.Push(&s.oldest, c)
	} else if len(s.oldest) > 0 && c.last < s.oldest[0].last {
		s.oldest[0] = c
		heap.Fix(&s.oldest, 0)
	}
}

// The file index: the candidates of the last scan, the oldest first.
const indexMagic = "mlflowfs index 1\n"

func (d *Dir) writeIndex(index []candidate) error {
	b := make([]byte, 0, len(indexMagic)+len(index)*48+4)
	b = append(b, indexMagic...)
	for _, c := range index {
		b = append(b, c.name[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(c.last))
		b = binary.BigEndian.AppendUint64(b, uint64(c.bytes))
	}
	b = binary.BigEndian.AppendUint32(b, Sum(b))
	return d.try(opMake, func() error {
		fresh := indexFile + newExt
		if err := d.root.WriteFile(fresh, b, 0o600); err != nil {
			return err
		}
		return d.root.Rename(fresh, indexFile)
	})
}

// readIndex gives the index of the last scan, of any process; one that is
// damaged is empty.
func (d *Dir) readIndex() (index []candidate) {
	b, err := do(d, opOpen, func() ([]byte, error) { return d.root.ReadFile(indexFile) }, nil)
	end := len(b) - 4
	if err != nil || end < len(indexMagic) || string(b[:len(indexMagic)]) != indexMagic || Sum(b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return nil
	}
	for b = b[len(indexMagic):end]; len(b) >= 48 && len(index) < int(d.opt.Memory/candidateBytes); b = b[48:] {
		index = append(index, candidate{name: Name(b[:32]), last: int64(binary.BigEndian.Uint64(b[32:])), bytes: int64(binary.BigEndian.Uint64(b[40:]))})
	}
	return index
}

// fewPins is how many pinned contents are looked at one by one for a status.
const fewPins = 1000

// Pinned returns the bytes of disk that pinned contents take; of many, as the
// last scan found them.
func (d *Dir) Pinned() int64 {
	pinned, err := d.pins()
	if err != nil || len(pinned) > fewPins {
		return d.pinned.Load()
	}
	n, err := do(d, opOpen, func() (n int64, err error) {
		for name := range pinned {
			l, st, err := d.labelOf(name)
			if l == nil || err != nil {
				continue
			}
			n += onDisk(st)
			if st, err := d.root.Lstat(l.data()); err == nil {
				n += onDisk(st)
			}
		}
		return n, nil
	}, nil)
	if err != nil {
		return d.pinned.Load()
	}
	return n
}
