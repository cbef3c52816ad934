package answers

import (
	"log/slog"
	"sync"
	"time"
)

// breaker knows whether one server answers. While it does not, the breaker is
// open: the server is asked now and then only, and by few at once.
type breaker struct {
	log *slog.Logger

	mu     sync.Mutex // guards what follows; no other lock is taken under it
	since  time.Time  // since when it does not answer; zero: it does
	tried  time.Time  // when it was last asked since
	asking int
}

const (
	askAgain  = 2 * time.Second
	maxAsking = 4
)

func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.since.IsZero()
}

// mayAsk tells whether a server that does not answer may be asked now.
func (b *breaker) mayAsk() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.tried) < askAgain || b.asking >= maxAsking {
		return false
	}
	b.tried = time.Now()
	b.asking++
	return true
}

// asked notes how a question ended.
func (b *breaker) asked(answered bool, err error) {
	b.mu.Lock()
	was := b.since
	b.asking = max(b.asking-1, 0)
	if answered {
		b.since = time.Time{}
	} else if was.IsZero() {
		b.since = time.Now()
	}
	b.mu.Unlock()
	switch {
	case answered && !was.IsZero():
		b.log.Info("a server answers again", "after", time.Since(was).Round(time.Second))
	case !answered && was.IsZero():
		b.log.Warn("a server can't be asked; what it said last is shown where it is known", "err", err)
	}
}

// silent notes that the server has not answered for a while.
func (b *breaker) silent() {
	b.mu.Lock()
	first := b.since.IsZero()
	if first {
		b.since, b.tried = time.Now(), time.Now()
	}
	b.mu.Unlock()
	if first {
		b.log.Warn("a server does not answer; what it said last is shown where it is known")
	}
}
