package cache

import "math/bits"

// bitset is a set of block indexes, which grows as it needs to.
type bitset []uint64

func (s bitset) has(i int64) bool {
	return i>>6 < int64(len(s)) && s[i>>6]&(1<<(i&63)) != 0
}

func (s *bitset) set(i int64) {
	for int64(len(*s)) <= i>>6 {
		*s = append(*s, 0)
	}
	(*s)[i>>6] |= 1 << (i & 63)
}

func (s bitset) clear(i int64) {
	if i>>6 < int64(len(s)) {
		s[i>>6] &^= 1 << (i & 63)
	}
}

// next is the first member from i on, or -1.
func (s bitset) next(i int64) int64 {
	for w := i >> 6; w < int64(len(s)); w++ {
		word := s[w]
		if w == i>>6 {
			word &= ^uint64(0) << (i & 63)
		}
		if word != 0 {
			return w<<6 + int64(bits.TrailingZeros64(word))
		}
	}
	return -1
}
