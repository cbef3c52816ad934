package fs

import (
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// saidOnce keeps programs that try again and again, or many names, from filling
// the log: what was said of a path is said again only after a while, and there
// are so many lines a second; how many were left out is said.
type saidOnce struct {
	mu     sync.Mutex // guards what follows
	last   *simplelru.LRU[string, time.Time]
	second time.Time // began when
	lines  int       // in it
	out    int       // left out since the last line
}

const (
	sayAgain     = 10 * time.Second
	remembers    = 1000
	linesASecond = 5
)

func newSaidOnce() *saidOnce {
	last, err := simplelru.NewLRU[string, time.Time](remembers, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &saidOnce{last: last}
}

func (s *saidOnce) log(log *slog.Logger, op, path string, e syscall.Errno, err error) {
	say, out := s.may(path+"\x00"+e.Error(), time.Now())
	if !say {
		return
	}
	args := []any{"path", path, "errno", e.Error(), "err", err, "mend", mend(e)}
	if out > 0 {
		args = append(args, "left_out", out)
	}
	log.Error(op+" failed", args...)
}

// may tells whether key is to be said now, and how many others were not.
func (s *saidOnce) may(key string, now time.Time) (say bool, out int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.last.Get(key); ok && now.Sub(t) < sayAgain {
		return false, 0
	}
	if now.Sub(s.second) >= time.Second {
		s.second, s.lines = now, 0
	}
	if s.lines++; s.lines > linesASecond {
		s.out++
		return false, 0
	}
	s.last.Add(key, now)
	out, s.out = s.out, 0
	return true, out
}
