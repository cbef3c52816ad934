package disk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"time"
)

// Answers of servers lie below answersDir, each in a sealed file of a kind that
// names its question. They have a bound of their own.
const (
	answersDir = "answers"
	answersAge = 30 * 24 * time.Hour
	maxAnswers = 256 << 20 // bytes of all
	tidyEvery  = maxAnswers / 8

	// MaxAnswer is the size of the largest answer that is kept, in bytes.
	MaxAnswer = 16 << 20
)

// Question names an answer: the server, and what it was asked.
func Question(server, question string) Name { return hash(server, question) }

func (n Name) answer() string { return answersDir + "/" + n.path() }

func (n Name) answerKind() string { return "answer 3 " + n.String() }

// Answer gives the last answer that was kept, and when that was; nil where there
// is none.
func (d *Dir) Answer(n Name) (body []byte, at time.Time) {
	a, _ := do(d, opOpen, func() (sealed, error) { return d.readSealed(n.answer(), n.answerKind(), MaxAnswer) }, nil)
	return a.body, a.at
}

// KeepAnswer keeps an answer; nil says that there is none any more.
func (d *Dir) KeepAnswer(n Name, body []byte) error {
	p := n.answer()
	return d.try(opMake, func() error {
		if body == nil {
			return ignoreMissing(d.root.Remove(p))
		}
		err := d.root.MkdirAll(path.Dir(p), 0o700)
		if err == nil { // another process may keep the same answer now
			err = d.writeSealed(p, fmt.Sprintf("%s.%016x%s", p, rand.Uint64(), newExt), n.answerKind(), body)
		}
		if err == nil {
			d.room.mu.Lock()
			d.count(counts{Answers: onDiskOf(int64(len(body)))})
			d.room.mu.Unlock()
		}
		return err
	})
}

// tidyAnswers removes the answers that nobody has renewed for long, and the
// oldest where there are too many. The lock is held.
func (d *Dir) tidyAnswers() error {
	type file struct {
		name Name
		size int64
		at   time.Time
	}
	var files []file
	var total int64
	err := d.walk(func(shard int) error {
		return d.names(answersDir+"/", shard, func(n Name, found []os.FileInfo) error {
			for _, st := range found {
				switch p := path.Join(path.Dir(n.answer()), st.Name()); {
				case p == n.answer():
					files = append(files, file{n, onDisk(st), st.ModTime()})
					total += onDisk(st)
				case isOrphan(st):
					d.root.Remove(p)
				}
			}
			return nil
		})
	})
	slices.SortFunc(files, func(a, b file) int { return a.at.Compare(b.at) })
	for _, f := range files {
		if total <= maxAnswers-tidyEvery && time.Since(f.at) < answersAge {
			break
		}
		d.root.Remove(f.name.answer())
		total -= f.size
	}
	r := &d.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own.Answers = -r.all.Answers
	return err
}
