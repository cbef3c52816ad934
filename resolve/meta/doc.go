// Package meta speaks with what holds MLflow's metadata: a tracking server
// (its REST API), a database that MLflow keeps (sqlite, PostgreSQL, MySQL, SQL Server),
// or a FileStore directory.
// Each is opened with [Open] and answers the same questions: what runs,
// experiments, logged models, registered models and versions there are, and
// where their artifacts lie.
//
// Nothing here writes. A database is read by short statements that can't write, so
// that a writing MLflow beside them is never held up; a FileStore is read file
// by file, each of which MLflow replaces as a whole.
//
// A missing thing is an error that is fs.ErrNotExist; where a server answered,
// it is a *[rest.Error].
package meta
