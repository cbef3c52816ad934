// Package artifact has the stores that artifacts lie in. A [Store] lists a
// directory and reads a range of a file; what differs between stores is data
// in its answers, never a type switch in its users:
//
//   - [NewLocal]: a directory of this machine, confined to itself (os.Root).
//   - [NewBlob]: a directory in an object store, through gocloud.dev/blob. Its
//     drivers are the packages s3, gcs and azure, which cmd/mlflowfs alone
//     links; a [Bucket] is what one of them opens.
//   - [NewRemote]: a directory of a [Host], by a protocol of files. Its drivers are the
//     packages sftp and hdfs; a [Connection] is what one of them makes.
//   - [NewProxy]: a tracking server's mlflow-artifacts API.
//   - [NewSigned]: files by URLs that a tracking server signs ([Signer]),
//     listed by another store.
//   - [NewServed]: a tracking server's get-artifact doors, to what only it reads.
//   - [NewDatabricks], [NewWorkspace], [NewDBFS]: what a Databricks workspace keeps, signs
//     and sends.
//   - [NewWeb]: plain files of the web.
//   - [NewRouter]: several routes to one directory, decided by what answers.
//     Those that were left are tried again ([RetryRoutes]).
//   - [Unsupported]: a scheme that nothing here reads; each question is
//     answered with errors.ErrUnsupported and the scheme's name.
//
// A listing may hold whole trees ([Tree]), and an [Entry] the validator to
// which reads are pinned. What only some stores can do, each [Router] does, with a
// default for the others: [Router.Stat], [Router.Open].
//
// Paths are relative to the store's root, with slashes, and "." or "" for the
// root itself. Names in listings are checked by [Clean]: what could not be a
// file's name in a directory is left out, with a line in the log.
package artifact
