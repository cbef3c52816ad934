package rest

import (
	"log/slog"
	"time"
)

// Lent are credentials for one place in an object store, which a server lends for a
// while: those of one cloud. They are kept in memory alone, and never shown.
type Lent struct {
	Key, Secret, Session string    // of S3
	SAS                  string    // of Azure: a shared access signature
	Token                string    // of Google
	Until                time.Time // by this machine's clock; zero where the server does not say
}

// String shows none of it.
func (Lent) String() string { return "lent credentials" }

// GoString shows none of it.
func (l Lent) GoString() string { return l.String() }

// LogValue shows none of it.
func (l Lent) LogValue() slog.Value { return slog.StringValue(l.String()) }

var _ slog.LogValuer = Lent{}
