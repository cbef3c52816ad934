// Package fs is what the mount shows and how the kernel asks for it.
//
// The tree is made of plain values: a [Node] has a size, a time and one of a
// [Dir], a [File] or a link's target. [New] gives its root:
//
//	runs/<run_id>/…              runs:/<run_id>/…
//	models/<name>/<version>/…    models:/<name>/<version>/…
//	models/<name>/latest         symlink to a version
//	models/<name>/<Stage>        symlink to a version; looked up in any case
//	models/<name>@<alias>        symlink to <name>/<version>
//	models/m-<id>/…              models:/m-<id>/…
//	experiments/<name>/traces/   its traces, each as JSON; traces.jsonl has them all
//	datasets/<name>.jsonl        the records of an evaluation dataset
//	prompts/<name>/<version>/    a prompt's text, and all of it as JSON
//	prompts/<name>/latest        symlink to a version
//	prompts/<name>@<alias>       symlink to <name>/<version>
//	experiments/<name>/<run>/    artifacts, a symlink to the run, and run.json
//	uri/s3/<bucket>/<key…>       an object store, where it was asked for
//
// Nothing in the tree knows of FUSE; it is tested as an io/fs.FS, with no
// kernel. The files fuse_*.go are the one place that does: [Mount] shows a
// tree to the kernel, and inode numbers, lifetimes, page-cache rules,
// interrupts and errnos are decided there.
//
// A name that can't stand in a directory is escaped: see [Escape].
package fs
