package rest

import (
	"regexp"
	"strconv"
)

var escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// Unquote decodes each percent sign that two hexadecimal digits follow, and leaves the
// others (Python's urllib.parse.unquote).
func Unquote(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(e string) string {
		n, _ := strconv.ParseUint(e[1:], 16, 8) // can't fail
		return string([]byte{byte(n)})
	})
}
