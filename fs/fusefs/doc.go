// Package fusefs shows a tree of package fs to the kernel: [Mount].
//
// The kernel knows names by inodes, and believes what it was told of them for as long as it
// was told to. What is decided here, and in no other package:
//
//   - which inode a request is of, and which handle (raw.go, names.go), and what the kernel
//     is told unasked (session.go);
//   - inode numbers: [ident] is made of a name's path and of what tells its content from
//     others, so that no inode ever has two contents (ident.go);
//   - lifetimes: for how long a name, its attributes and a listing are believed, what is to
//     be asked for anew (anew.go), what the kernel is to forget (names.go), and that programs
//     which watch a link hear of its moves (links.go);
//   - pages: which reads go through the kernel's page cache, which files it reads by itself
//     (passthrough), and what it is given before it asks (open.go, passthrough.go, pusher.go);
//   - interrupts: a signal ends a request only if the program will die of it (interrupt.go);
//   - errnos: what a program is told of an error; the words go to the log (errno.go);
//   - the mount's end: a second process, the [Guard], takes it away when the daemon is
//     killed.
package fusefs
