package cache

import (
	"math"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// costed is values in the order of their last use, bounded by what they cost
// together: the one used longest ago goes first, and the newest never does. Its
// user guards it.
type costed[K comparable, V any] struct {
	lru   *simplelru.LRU[K, priced[V]]
	most  int64
	total int64 // of what is in it
}

type priced[V any] struct {
	v    V
	cost int64
}

// newCosted makes an empty one; gone, where it is not nil, is told of each value
// that leaves it.
func newCosted[K comparable, V any](most int64, gone func(K, V)) *costed[K, V] {
	c := &costed[K, V]{most: most}
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

// add puts v in the place of what key had.
func (c *costed[K, V]) add(key K, v V, cost int64) {
	c.lru.Remove(key)
	c.lru.Add(key, priced[V]{v, cost})
	for c.total += cost; c.total > c.most && c.lru.Len() > 1; {
		c.lru.RemoveOldest()
	}
}

func (c *costed[K, V]) get(key K) (V, bool) {
	x, ok := c.lru.Get(key)
	return x.v, ok
}

func (c *costed[K, V]) has(key K) bool { return c.lru.Contains(key) }

func (c *costed[K, V]) remove(key K) { c.lru.Remove(key) }

func (c *costed[K, V]) keys() []K { return c.lru.Keys() }
