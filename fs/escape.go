package fs

import (
	"strings"
)

// MaxName is NAME_MAX: the longest name that programs expect, in bytes.
const MaxName = 255

// Escape makes a name of MLflow's into a file name, and [Unescape] brings it
// back: a slash, a NUL, and the names "." and "..", become %2F, %00, %2E and
// %2E%2E; a percent sign that would then read as such an escape becomes %25.
// All other names stay as they are. The empty name becomes "%".
func Escape(name string) string {
	switch name {
	case "":
		return "%"
	case ".":
		return "%2E"
	case "..":
		return "%2E%2E"
	case "%":
		return "%25"
	}
	if !strings.ContainsAny(name, "/\x00%") {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '/':
			b.WriteString("%2F")
		case c == 0:
			b.WriteString("%00")
		case c == '%' && isEscape(name[i:]):
			b.WriteString("%25")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// isEscape tells whether s begins with one of the escapes above.
func isEscape(s string) bool {
	if len(s) < 3 {
		return false
	}
	switch s[:3] {
	case "%2F", "%00", "%2E", "%25":
		return true
	}
	return false
}

// Unescape is the inverse of Escape.
func Unescape(file string) string {
	if file == "%" {
		return ""
	}
	if !strings.Contains(file, "%") {
		return file
	}
	return strings.NewReplacer("%2F", "/", "%00", "\x00", "%2E", ".", "%25", "%").Replace(file)
}

// shorten cuts a file name that is too long, between characters, and puts an
// ending there that tells it from others with the same beginning.
func shorten(name, ending string) string {
	if len(name)+len(ending) <= MaxName {
		return name + ending
	}
	cut := MaxName - len(ending)
	for cut > 0 && name[cut]&0xC0 == 0x80 { // inside a UTF-8 character
		cut--
	}
	return name[:cut] + ending
}
