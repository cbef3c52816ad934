package resolve

import "sync"

// Index is a list that the tracking server gave, with the names that its user has
// for the items. They are made once for each answer of the server's, so that a
// look-up costs the same however long the list is.
type Index[T any] struct {
	Items []T

	once  sync.Once
	names []string
	at    map[string]int
}

// Names gives the name of each item, and which item a name means. The first call
// makes them by name, which is the same for all.
func (x *Index[T]) Names(name func([]T) (names []string, at map[string]int)) ([]string, map[string]int) {
	x.once.Do(func() { x.names, x.at = name(x.Items) })
	return x.names, x.at
}
