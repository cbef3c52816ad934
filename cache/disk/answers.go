package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"
)

// Answers of servers lie below answersDir, each in a file that begins with a
// line that names its question by a checksum. They have a bound of their own.
const (
	answersDir = "answers"
	answersAge = 30 * 24 * time.Hour
	maxAnswers = 256 << 20 // bytes of all
	tidyEvery  = maxAnswers / 8

	// MaxAnswer is the size of the largest answer that is kept, in bytes.
	MaxAnswer = 16 << 20
)

// Question names an answer: the server, and what it was asked.
func Question(server, question string) Name {
	h := sha256.New()
	for _, p := range []string{server, question} {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return Name(h.Sum(nil))
}

func answerPath(n Name) string { return answersDir + "/" + n.path() }

// headOf is the first line of an answer on disk.
func headOf(n Name, body []byte) string {
	return fmt.Sprintf("mlflowfs answer 2 %08x\n", crc32.Update(Sum(n[:]), castagnoli, body))
}

// Answer gives the last answer that was kept, and when that was; nil where there
// is none.
func (d *Dir) Answer(n Name) (body []byte, at time.Time) {
	type answer struct {
		body []byte
		at   time.Time
	}
	a, err := do(d, opOpen, func() (a answer, err error) {
		f, err := d.root.Open(answerPath(n))
		if err != nil {
			return a, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil || st.Size() > MaxAnswer+100 {
			return a, err
		}
		b, err := readAll(f, st.Size())
		head, body, _ := bytes.Cut(b, []byte("\n"))
		if err != nil || string(head)+"\n" != headOf(n, body) {
			return a, err // cut, damaged, or another's
		}
		return answer{body, st.ModTime()}, nil
	}, nil)
	if err != nil {
		return nil, time.Time{}
	}
	return a.body, a.at
}

func readAll(f *os.File, size int64) ([]byte, error) {
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if int64(n) == size {
		err = nil
	}
	return b[:n], err
}

// KeepAnswer keeps an answer; nil says that there is none any more.
func (d *Dir) KeepAnswer(n Name, body []byte) error {
	p := answerPath(n)
	return d.try(opMake, func() error {
		if body == nil {
			return ignoreMissing(d.root.Remove(p))
		}
		if err := d.root.MkdirAll(path.Dir(p), 0o700); err != nil {
			return err
		}
		fresh := p + newExt
		err := d.root.WriteFile(fresh, append([]byte(headOf(n, body)), body...), 0o600)
		if err == nil {
			err = d.root.Rename(fresh, p)
		}
		if err != nil {
			d.root.Remove(fresh)
			return err
		}
		if d.answers.Add(int64(len(body))) > tidyEvery {
			d.kick()
		}
		return nil
	})
}

// tidyAnswers removes the answers that nobody has renewed for long, and the
// oldest where there are too many. The lock is held.
func (d *Dir) tidyAnswers() {
	type file struct {
		path string
		size int64
		at   time.Time
	}
	var files []file
	var total int64
	shards, _ := d.readDir(answersDir)
	for _, shard := range shards {
		if b, err := hex.DecodeString(shard.Name()); err != nil || len(b) != 1 {
			continue
		}
		var entries []fs.DirEntry
		entries, _ = d.readDir(answersDir + "/" + shard.Name())
		for _, e := range entries {
			base, isNew := bytes.CutSuffix([]byte(e.Name()), []byte(newExt))
			if _, ok := nameOf(shard.Name() + string(base)); !ok {
				continue
			}
			st, err := e.Info()
			if err != nil || isNew && time.Since(st.ModTime()) < orphanAge {
				continue
			}
			files = append(files, file{answersDir + "/" + shard.Name() + "/" + e.Name(), st.Size(), st.ModTime()})
			total += st.Size()
		}
	}
	slices.SortFunc(files, func(a, b file) int { return a.at.Compare(b.at) })
	for _, f := range files {
		if total <= maxAnswers-tidyEvery && time.Since(f.at) < answersAge {
			break
		}
		d.root.Remove(f.path)
		total -= f.size
	}
	d.answers.Store(0)
}
