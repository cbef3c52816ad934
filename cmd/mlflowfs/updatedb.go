package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

// updatedbConf says which file systems updatedb leaves out, which lists all the
// files of a machine for locate.
const updatedbConf = "/etc/updatedb.conf"

var pruneFS = regexp.MustCompile(`(?m)^\s*PRUNEFS\s*=\s*"([^"]*)"`)

// checkUpdatedb looks whether updatedb walks through mounts each night, which asks
// the server for every directory that it has.
func checkUpdatedb(conf string) finding {
	b, err := os.ReadFile(conf)
	if err != nil {
		return finding{"updatedb", well, "is not installed", ""}
	}
	if m := pruneFS.FindSubmatch(b); m != nil && slices.Contains(strings.Fields(strings.ToLower(string(m[1]))), "fuse.mlflowfs") {
		return finding{"updatedb", well, "leaves mounts out", ""}
	}
	return finding{"updatedb", lesser, "walks through mounts that its user may see, and asks the server for every directory", "write fuse.mlflowfs into PRUNEFS in " + conf}
}
