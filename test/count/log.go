package count

import (
	"bytes"
	"io"
	"sync"
)

// Log is a log that is read while others write it.
type Log struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

var _ io.Writer = (*Log)(nil)

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Stop has whoever writes or reads wait, as at a terminal that is stopped, until
// goOn is called.
func (l *Log) Stop() (goOn func()) {
	l.mu.Lock()
	return l.mu.Unlock
}
