// Package cache keeps bytes near that were far away. It is a leaf: it knows
// nothing of MLflow, of FUSE or of HTTP.
//
// A [Cache] holds the content of many files in blocks of [BlockSize] bytes: in
// memory, in one least-recently-used order bounded in bytes, and below that in
// a [disk.Dir], a directory that outlives the process and that several share.
// [Cache.Open] gives a [File], a handle; all handles of one [Key] share one
// content, so a block is fetched once however many readers wait for it. A
// fetch belongs to the cache and not to the reader that asked first: a reader
// whose context ends lets go of its wait, and the fetch goes on.
//
// Where the bytes come from is a [Source]. It is asked for a range and may
// answer with that range, or with the whole file from byte 0 (an origin that
// does not honour ranges). What comes whole is kept and never asked for again:
// the stream fills the content's blocks, in a file of the directory or a temporary
// one, and readers wait until it has passed what they want.
//
// What is fetched before anybody asks is the window of each reader that goes on in
// order, and, once the reads say that the file will be read whole, all of it, the
// head and the tail first (prefetch.go). Requests that a program
// waits for go before those (package limit), and a silent origin takes nothing
// from one that answers.
//
// Every length is held against [Key.Size], and every block on disk against its
// checksum, once in a process's life. What is in memory, what is on disk and, by
// [File.Generation], what the kernel has is of one content: whenever one meets the
// other, validators and the file's nonce are compared. A body that ends early is resumed or is
// an error, never a shorter file; an origin whose size or validator changes
// under a reader ends in [ErrChanged], never in mixed bytes; a disk that is
// damaged or fails is a block less, and never an error.
//
// A [Downloader] copies contents into files: each is a content that is kept in the
// file which it becomes.
//
// [Memo] remembers values (listings, runs, models) with an expiry that is
// judged at look-up, and with one load for each key at a time.
//
// # Terms
//
//	content     what is known of one key's bytes, shared by its handles
//	generation  tells a content from those that its key had before
//	block       BlockSize bytes; the unit of fetching, checking and keeping
//	resident    of a block: in memory or on disk
//	pending     of a block: on its way
//	fetch       one request for blocks that follow each other
//	stream      an answer that is the whole file, of an origin without ranges
//	window      the blocks behind a reader that are worth having
//	fill        to fetch all of a content
//	fresh       of a block: it has come, and nobody has asked for it
//	validator   what an origin says of a content's identity (a strong ETag)
//	nonce       what the disk says of a file's
//	permit      a place among the requests that may run
//	spool       a file that is made here, from its start to its end, while others read it
//	home        what keeps a content's file: a directory, or a download's place
package cache
