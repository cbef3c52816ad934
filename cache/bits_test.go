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

// TestMarksAreCountedByRegion fails when a mark counts for another region, or for none;
// or when marks of many blocks, at any place, take more and more memory.
func TestMarksAreCountedByRegion(t *testing.T) {
	t.Parallel()
	var m marks
	const far = int64(1) << 45
	for _, i := range []int64{0, 15, 16, 63, 64, far + 17, far + 17} {
		m.set(i)
	}
	for at, want := range map[[2]int64]int64{{0, 16}: 2, {16, 16}: 1, {32, 16}: 0, {48, 16}: 1, {0, 64}: 4, {64, 64}: 1, {far, 64}: 1, {far + 16, 16}: 1, {far, 16}: 0, {128, 64}: 0} {
		if got := m.count(at[0], at[1]); got != want {
			t.Errorf("%d of the %d from %d, and not %d", got, at[1], at[0], want)
		}
	}
	for i := range int64(3 * mostMarks) {
		m.set(i * 1000)
	}
	if n := int64(len(m)); n > mostMarks || m.count((3*mostMarks-1)*1000/64*64, 64) != 1 {
		t.Errorf("%d words", n)
	}
}
