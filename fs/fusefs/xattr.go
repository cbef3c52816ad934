package fusefs

import (
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/mlflowfs/mlflowfs/fs"
)

// attributePrefix is how the names of all extended attributes here begin
// (xattr(7): what users may set, and any program may read, is in user.).
const (
	userAttributes  = "user."
	attributePrefix = userAttributes + "mlflow."
)

// attributes are those of the node, without the prefix.
func (i *inode) attributes() map[string]string {
	switch n := i.get(); {
	case n.File != nil:
		if d, ok := n.File.(fs.Described); ok {
			return d.Attributes()
		}
	case n.Dir != nil:
		if d, ok := n.Dir.(fs.Described); ok {
			return d.Attributes()
		}
	}
	return nil
}

// getxattr says of the system's own attributes that there can be none: ls asks each file for
// its access control list, until it is told that.
func (i *inode) getxattr(name string, dest []byte) (uint32, syscall.Errno) {
	if !strings.HasPrefix(name, userAttributes) {
		return 0, syscall.ENOTSUP
	}
	short, ours := strings.CutPrefix(name, attributePrefix)
	if !ours {
		return 0, syscall.ENODATA
	}
	value, ok := i.attributes()[short]
	if !ok {
		return 0, syscall.ENODATA
	}
	return intoAttribute(dest, value)
}

func (i *inode) listxattr(dest []byte) (uint32, syscall.Errno) {
	var names strings.Builder
	for _, name := range slices.Sorted(maps.Keys(i.attributes())) {
		names.WriteString(attributePrefix + name + "\x00")
	}
	return intoAttribute(dest, names.String())
}

// intoAttribute answers as getxattr(2) does: the size alone where it is asked for
// that.
func intoAttribute(dest []byte, value string) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}
