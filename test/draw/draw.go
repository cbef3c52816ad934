// Package draw makes by a seed what users have: environments, files of credentials, of
// netrc, of AWS's and of Kubernetes's, and the keys of buckets. Mostly they are good
// ones, and sometimes what a client must refuse or pass over.
package draw

import (
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Draw draws: what it gives follows from its seed alone.
type Draw struct{ *rand.Rand }

// New begins the draw n of a seed.
func New(seed, n uint64) Draw { return Draw{rand.New(rand.NewPCG(seed, n))} }

// One of some words.
func (d Draw) One(of ...string) string { return of[d.IntN(len(of))] }

// Odds is true once in n times.
func (d Draw) Odds(n int) bool { return d.IntN(n) == 0 }

// Environment is the variables and files that a client finds.
type Environment struct {
	Env   map[string]string `json:"env"`
	Files map[string]string `json:"files"` // below the home directory, by their names
	User  string            `json:"user"`  // of the tracking URI, with its @
}

// NewEnvironment is one with nothing but its home.
func NewEnvironment(home string) Environment {
	return Environment{Env: map[string]string{"HOME": home}, Files: map[string]string{}}
}

// Set sets a variable to one of some values, once in odds times.
func (d Draw) Set(e Environment, odds int, name string, values ...string) {
	if d.Odds(odds) {
		e.Env[name] = d.One(values...)
	}
}

// Write writes the files.
func (e Environment) Write() error {
	for name, text := range e.Files {
		path := filepath.Join(e.Env["HOME"], name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
