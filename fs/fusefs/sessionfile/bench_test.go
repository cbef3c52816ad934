//go:build linux

package sessionfile

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// run gives the names that MLflow gives runs: 32 digits.
func runName(i uint64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], i*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(b[8:], ^i*0xbf58476d1ce4e5b9)
	return hex.EncodeToString(b[:])
}

const many = 1_000_000 // names

func addMany(t testing.TB, f *File) {
	for i := range uint64(many) {
		if _, err := f.Names.Add(Name{Number: numberOf(i), Check: i, Parent: i % 1000, Dir: true, Name: runName(i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func numberOf(i uint64) uint64 { return (i + 1) * 0xda942042e4dd58b5 }

// BenchmarkNames is of a million rows.
func BenchmarkNames(b *testing.B) {
	f := create(b)
	addMany(b, f)
	n := &f.Names
	names := make([]string, many)
	for i := range names {
		names[i] = runName(uint64(i))
	}
	any := func() uint64 { return rand.Uint64N(many) }
	b.Run("At", func(b *testing.B) {
		for b.Loop() {
			if n.At(numberOf(any())) == 0 {
				b.Fatal("a row is missing")
			}
		}
	})
	b.Run("Leads", func(b *testing.B) {
		for b.Loop() {
			i := any()
			if n.Leads(i%1000, names[i]) == 0 {
				b.Fatal("a row is missing")
			}
		}
	})
	b.Run("Get", func(b *testing.B) {
		for b.Loop() {
			n.Get(n.At(numberOf(any())))
		}
	})
	b.Run("RemoveAndAdd", func(b *testing.B) {
		for b.Loop() {
			i := any()
			n.Remove(n.At(numberOf(i)))
			if _, err := n.Add(Name{Number: numberOf(i), Check: i, Parent: i % 1000, Dir: true, Name: names[i]}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("TouchAndOldest", func(b *testing.B) {
		for b.Loop() {
			n.Touch(n.At(numberOf(any())))
			n.Oldest()
		}
	})
	b.Run("Open", func(b *testing.B) {
		for b.Loop() {
			f, err := Open(f.Descriptor(), 7)
			if err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
}

// BenchmarkAddMany adds a million to none.
func BenchmarkAddMany(b *testing.B) {
	for b.Loop() {
		f, err := Create(7)
		if err != nil {
			b.Fatal(err)
		}
		addMany(b, f)
		f.Close()
	}
}
