package main

import (
	"os"
	"strings"
	"unsafe"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// hidePasswords writes over the passwords of URIs on the command line, which
// every user of the machine can read (proc(5), cmdline). The strings of os.Args
// are that memory itself; the program goes on with copies of them.
func hidePasswords() {
	for i, arg := range os.Args {
		begin, end := passwordIn(arg)
		if begin == end {
			continue
		}
		os.Args[i] = strings.Clone(arg)
		shown := unsafe.Slice(unsafe.StringData(arg), len(arg))
		for k := begin; k < end; k++ {
			shown[k] = '*'
		}
	}
}

// passwordIn finds the password of a URI in s; of a database's, all that may hold one.
func passwordIn(s string) (begin, end int) {
	at := strings.Index(s, "://")
	if at < 0 {
		return 0, 0
	}
	if rest.IsDatabase(s[strings.LastIndexByte(s[:at], '=')+1:]) { // --tracking-uri=…
		return at + len("://"), len(s)
	}
	at += len("://")
	authority := s[at:]
	if n := strings.IndexAny(authority, "/?#"); n >= 0 {
		authority = authority[:n]
	}
	host := strings.LastIndexByte(authority, '@')
	if host < 0 {
		return 0, 0
	}
	colon := strings.IndexByte(authority[:host], ':')
	if colon < 0 {
		return 0, 0
	}
	return at + colon + 1, at + host
}
