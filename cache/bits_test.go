package cache

import "testing"

// TestBitsetFindsItsMembers fails when a set of blocks forgets one or invents
// one: a block would be fetched twice, or taken for one that is there.
func TestBitsetFindsItsMembers(t *testing.T) {
	t.Parallel()
	var s bitset
	for _, i := range []int64{0, 63, 64, 200} {
		s.set(i)
	}
	for from, want := range map[int64]int64{0: 0, 1: 63, 63: 63, 64: 64, 65: 200, 200: 200, 201: -1, 1000: -1} {
		if got := s.next(from); got != want {
			t.Errorf("from %d: %d, and not %d", from, got, want)
		}
	}
	if s.has(1) || !s.has(200) || s.has(5000) {
		t.Error("it does not hold what was set")
	}
	s.clear(5000)
	s.clear(200)
	if s.next(65) != -1 {
		t.Error("it holds what was cleared")
	}
}
