// Package cache keeps bytes near that were far away. It is a leaf: it knows
// nothing of MLflow, of FUSE or of HTTP.
//
// A [Cache] holds the content of many files in blocks of [BlockSize] bytes, in
// one least-recently-used order bounded in bytes. [Cache.Open] gives a [File],
// a handle; all handles of one [Key] share one content, so a block is fetched
// once however many readers wait for it. A fetch belongs to the cache and not
// to the reader that asked first: a reader whose context ends lets go of its
// wait, and the fetch goes on.
//
// Where the bytes come from is a [Source]. It is asked for a range and may
// answer with that range, or with the whole file from byte 0 (an origin that
// does not honour ranges). What comes whole is kept and never asked for again:
// a small file goes into the blocks, a larger one into a spool, an unlinked
// temporary file that readers follow while it grows.
//
// Every length is held against [Key.Size]. A body that ends early is resumed
// or is an error, never a shorter file; an origin whose size or validator
// changes under a reader ends in [ErrChanged], never in mixed bytes.
//
// A [Downloader] copies contents into files by the same rules, in pieces that an
// interrupted download is taken up with.
//
// [Memo] remembers values (listings, runs, models) with an expiry that is
// judged at look-up, and with one load for each key at a time.
package cache
