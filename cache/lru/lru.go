// Package lru keeps values in the order of their last use, bounded by what they
// cost together. It is golang-lru with a cost for each value.
package lru

import (
	"math"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Costed is values in the order of their last use, bounded by what they cost
// together: the one used longest ago goes first, and the newest never does. Its
// user guards it.
type Costed[K comparable, V any] struct {
	lru   *simplelru.LRU[K, priced[V]]
	most  int64
	total int64 // of what is in it
}

type priced[V any] struct {
	v    V
	cost int64
}

// New makes an empty one; gone, where it is not nil, is told of each value
// that leaves it.
func New[K comparable, V any](most int64, gone func(K, V)) *Costed[K, V] {
	c := &Costed[K, V]{most: most}
	var err error
	c.lru, err = simplelru.NewLRU(math.MaxInt, func(k K, x priced[V]) {
		c.total -= x.cost
		if gone != nil {
			gone(k, x.v)
		}
	})
	if err != nil {
		panic(err) // only for a size below 1
	}
	return c
}

// Add puts v in the place of what key had.
func (c *Costed[K, V]) Add(key K, v V, cost int64) {
	c.lru.Remove(key)
	c.lru.Add(key, priced[V]{v, cost})
	for c.total += cost; c.total > c.most && c.lru.Len() > 1; {
		c.lru.RemoveOldest()
	}
}

// Total is what all values cost.
func (c *Costed[K, V]) Total() int64 { return c.total }

// Get gives the value of key, which is used by that.
func (c *Costed[K, V]) Get(key K) (V, bool) {
	x, ok := c.lru.Get(key)
	return x.v, ok
}

// Peek gives the value of key. That is no use of it.
func (c *Costed[K, V]) Peek(key K) (V, bool) {
	x, ok := c.lru.Peek(key)
	return x.v, ok
}

// Has tells whether key has a value. That is no use of it.
func (c *Costed[K, V]) Has(key K) bool { return c.lru.Contains(key) }

// Remove takes the value of key out.
func (c *Costed[K, V]) Remove(key K) { c.lru.Remove(key) }

// Keys gives all keys, the one used longest ago first.
func (c *Costed[K, V]) Keys() []K { return c.lru.Keys() }
