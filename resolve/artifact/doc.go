// Package artifact has the stores that artifacts lie in. A [Store] lists a
// directory and reads a range of a file; what differs between stores is data
// in its answers, never a type switch in its users:
//
//   - [NewLocal]: a directory of this machine, confined to itself (os.Root).
//   - [NewProxy]: a tracking server's mlflow-artifacts API.
//   - [Unsupported]: a scheme that nothing here reads; each question is
//     answered with errors.ErrUnsupported and the scheme's name.
//
// Paths are relative to the store's root, with slashes, and "." or "" for the
// root itself. Names in listings are checked by [Clean]: what could not be a
// file's name in a directory is left out, with a line in the log.
package artifact
