package resolve

import "time"

// NewestFirst tells what a search that gives the newest first gives again: what begins
// while it is being paged through pushes the others on, so that the end of one page stands
// at the beginning of the next. The zero one is ready.
type NewestFirst struct {
	last   time.Time       // start of the last that was given
	given  map[string]bool // those given that began then
	listed bool
}

// Again tells whether a thing, by its id and start, was given before, or began meanwhile;
// else it is given now.
func (o *NewestFirst) Again(id string, start time.Time) bool {
	if o.listed && start.After(o.last) {
		return true
	}
	if !o.listed || !start.Equal(o.last) {
		o.listed, o.last, o.given = true, start, map[string]bool{}
	}
	if o.given[id] {
		return true
	}
	o.given[id] = true
	return false
}
