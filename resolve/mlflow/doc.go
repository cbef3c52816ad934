// Package mlflow speaks with what holds MLflow's metadata: a tracking server
// (its REST API), a sqlite file that MLflow writes, or a FileStore directory.
// Each is opened with [Open] and answers the same questions: what runs,
// experiments, logged models, registered models and versions there are, and
// where their artifacts lie.
//
// Nothing here writes. A sqlite file is opened read-only with short reads, so
// that a writing MLflow beside it is never held up; a FileStore is read file
// by file, each of which MLflow replaces as a whole.
//
// Errors are *[Error] where a server answered, and match the standard
// library's sentinels: fs.ErrNotExist (404), fs.ErrPermission (401, 403).
//
// [Client] is the HTTP side: credentials from MLflow's own environment
// variables and ~/.mlflow/credentials, sent to the tracking server and to no
// other host; 408, 429, 5xx and network errors retried with backoff; a limit
// on silence before and inside an answer.
package mlflow
