// Package meta speaks with what holds MLflow's metadata: a tracking server
// (its REST API), a sqlite file that MLflow writes, or a FileStore directory.
// Each is opened with [Open] and answers the same questions: what runs,
// experiments, logged models, registered models and versions there are, and
// where their artifacts lie.
//
// Nothing here writes. A sqlite file is opened read-only with short reads, so
// that a writing MLflow beside it is never held up; a FileStore is read file
// by file, each of which MLflow replaces as a whole.
//
// A missing thing is an error that is fs.ErrNotExist; where a server answered,
// it is a *[rest.Error].
package meta
