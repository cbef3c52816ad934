// Package fs is what the mount shows.
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
// A Dir, a File and a [Handle] do what their interface says. What some of them can do
// besides is an interface of its own, with one method as a rule; who shows the tree asks
// for it, and does without.
//
// Nothing here knows of FUSE: the tree is tested as an io/fs.FS, with no kernel. Package
// fusefs shows it to one.
//
// A name that can't stand in a directory is escaped: see [Escape].
package fs
