package meta

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// passed are the parts of a FileStore that can't be read: one never hides
// another. Each is said once in the log, and in `status` and `doctor` until it
// can be read.
type passed struct {
	log *slog.Logger

	mu    sync.Mutex
	parts map[string]string // path below the store to the reason
}

// passedLimit is how many parts are remembered, and so said once and not each
// time that they are met.
const passedLimit = 1000

// over notes why a part is passed over.
func (p *passed) over(part string, err error) {
	why := err.Error()
	var at *fs.PathError
	if errors.As(err, &at) {
		why = at.Err.Error() // the path is said already
	}
	p.mu.Lock()
	known, full := p.parts[part] == why, len(p.parts) >= passedLimit
	if !known && !full {
		if p.parts == nil {
			p.parts = map[string]string{}
		}
		p.parts[part] = why
	}
	p.mu.Unlock()
	if !known && !full {
		p.log.Warn("a part of the FileStore can't be read and is passed over", "part", part, "err", why)
	}
}

// unless notes err of a part, or that there is none any more, and tells whether
// there was one. What is expected is not noted.
func (p *passed) unless(part string, err error, expected bool) bool {
	if err != nil && !expected {
		p.over(part, err)
		return true
	}
	p.mu.Lock()
	delete(p.parts, part)
	p.mu.Unlock()
	return err != nil
}

// remarks are what status and doctor say.
func (p *passed) remarks() []Remark {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Remark
	for _, part := range slices.Sorted(maps.Keys(p.parts)) {
		out = append(out, Remark{What: "FileStore", Words: fmt.Sprintf("%s is passed over: %s", part, p.parts[part]), Lesser: true})
	}
	return out
}
