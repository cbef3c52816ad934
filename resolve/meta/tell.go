package meta

// Teller is a Store that knows more of itself than that it answers: how old it
// is, and which parts of it can't be read. A store that is none has nothing to
// tell.
type Teller interface {
	// Tell gives remarks for `doctor` and `status`, by what was read so far: it
	// reads nothing itself, so that it never waits.
	Tell() []Remark
}

// Remark is a sentence about a store.
type Remark struct {
	What   string // what it is about, in a word
	Words  string
	Lesser bool   // something is not shown that could be
	Mend   string // what to do about it; empty where nothing is
}
