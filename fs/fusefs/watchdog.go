package fusefs

import (
	"log/slog"
	"runtime"
	"sync"
	"time"
)

// watchdog looks for requests of the kernel that are not answered, and says
// once of each spell of them where the daemon's goroutines stand.
type watchdog struct {
	log   *slog.Logger
	limit time.Duration // for one request
	stop  chan struct{}

	mu      sync.Mutex // guards running; no other lock is taken under it
	running map[*killableContext]time.Time
}

// stacksSize is how much of the goroutines' stacks is said, in bytes.
const stacksSize = 256 << 10

func newWatchdog(log *slog.Logger, limit time.Duration) *watchdog {
	return &watchdog{log: log, limit: limit, stop: make(chan struct{}), running: map[*killableContext]time.Time{}}
}

func (w *watchdog) begins(p *killableContext) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[p] = time.Now()
}

func (w *watchdog) ends(p *killableContext) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, p)
}

// oldest is how long the request waits that waits longest, and how many do.
func (w *watchdog) oldest() (waits time.Duration, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, began := range w.running {
		waits = max(waits, time.Since(began))
	}
	return waits, len(w.running)
}

// watch looks until stop is closed.
func (w *watchdog) watch() {
	tick := time.NewTicker(max(w.limit/4, 10*time.Millisecond))
	defer tick.Stop()
	said := false
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		waits, n := w.oldest()
		if waits < w.limit {
			said = false
			continue
		}
		if !said {
			said = true
			stacks := make([]byte, stacksSize)
			stacks = stacks[:runtime.Stack(stacks, true)]
			w.log.Error("a request of the kernel is not answered, which is a bug or a server that is slower than --timeout allows", "waits", waits.Round(time.Second), "requests", n, "goroutines", string(stacks))
		}
	}
}
