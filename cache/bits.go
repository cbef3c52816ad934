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

// marks are some of many block indexes, with the marks near each other in one word: of
// large and small indexes alike few take little memory, and where there are too many, all
// are forgotten.
type marks map[int64]uint64

const (
	markedAtOnce = 64      // blocks of a word
	mostMarks    = 4 << 10 // words
)

func (m *marks) set(i int64) {
	word, has := (*m)[i/markedAtOnce]
	if *m == nil || (!has && len(*m) >= mostMarks) {
		*m = marks{}
	}
	(*m)[i/markedAtOnce] = word | 1<<(i%markedAtOnce)
}

// count is how many of n blocks from first on are marked; first is a multiple of n, and
// that a part of markedAtOnce.
func (m marks) count(first, n int64) int64 {
	word := m[first/markedAtOnce] >> (first % markedAtOnce)
	return int64(bits.OnesCount64(word << (markedAtOnce - n)))
}
