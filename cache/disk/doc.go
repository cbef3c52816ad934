// Package disk is the only holder of the cache's files. It knows nothing of
// origins or of memory.
//
// A [Dir] is a directory that outlives the process and that any number of
// processes use at once. It holds contents, each a [File], and the last answers
// of servers. It is held open: what happens to its name, or above it, leads no
// operation elsewhere.
//
// # Layout
//
//	lock            flock(2): who counts and evicts
//	usage           the bytes that all processes hold (sealed)
//	index           what was used longest ago, as the last scan saw it (sealed)
//	pins/NAME       an empty file for each pinned content
//	ab/REST.rec     the record of the content ab REST: see record.go
//	ab/REST.NONCE   its bytes: a sparse file of the content's size
//	answers/ab/REST the last answer to a question (sealed)
//	trees/ab/REST…  directories of contents for programs: see tree.go
//
// A name is the SHA-256 of the content's scope, location, size and version. The
// nonce is drawn when a content's files are made, and stands in the record: so a
// record names one file, for ever, and a content that is replaced has another.
// A record appears by link(2), when its data file is there, unless there is one.
// Nothing is changed or cut afterwards: contents are only unlinked, and who has
// one open reads on. A sealed file begins with its kind and a checksum, and is
// replaced by rename(2); one that is damaged is ignored, and made anew.
//
// A [Scratch] is a file without a name, for what is made here and is gone with the
// process. Its room is reserved for as long as it is open.
//
// A [Part] is a file outside of it that grows beside its place: a download. Its
// record lies beside it, and is as those of contents are.
//
// # Operations
//
// Each system call that could wait for the disk goes through one function
// (do), which waits for it with patience and classifies its error, once, by
// whom it concerns: this file, space, this process, or the device. Only the
// device rests operations, and only those of the kind that failed or hung: a
// disk that takes no more is read on, and one that answers no stat, too.
//
// # Room
//
// Bytes are counted in memory, and one goroutine (keeper) folds them into the file
// usage. It evicts, too: it takes what was used longest ago, from an index that is
// bounded and kept between processes, and scans the directory when the index is
// used up. Who writes waits for room, for a second; nobody else does. Between two
// scans the count may be too high, by what other processes wrote during a scan, or
// too low, by what a process that was killed had not folded yet.
package disk
