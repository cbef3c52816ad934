package fs

import (
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// saidOnce keeps a program that tries again and again from filling the log:
// what was said of a path is said again only after a while.
type saidOnce struct {
	mu   sync.Mutex // guards last
	last *simplelru.LRU[string, time.Time]
}

const (
	sayAgain  = 10 * time.Second
	remembers = 1000
)

func newSaidOnce() *saidOnce {
	last, err := simplelru.NewLRU[string, time.Time](remembers, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &saidOnce{last: last}
}

func (s *saidOnce) log(log *slog.Logger, op, path string, e syscall.Errno, err error) {
	key := path + "\x00" + e.Error()
	s.mu.Lock()
	t, ok := s.last.Get(key)
	again := ok && time.Since(t) < sayAgain
	if !again {
		s.last.Add(key, time.Now())
	}
	s.mu.Unlock()
	if !again {
		log.Error(op+" failed", "path", path, "errno", e.Error(), "err", err)
	}
}
