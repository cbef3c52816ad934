package artifact

import (
	"fmt"
	"strings"
)

// unambiguous says whether a tracking server takes path for what it is. A
// server decodes the path of a request again and again until it stays the
// same, parses it as a URL, and escapes control characters
// (mlflow.utils.uri.validate_path_is_safe), so that for some names it would
// look for another file, and answer with that file's bytes where there is
// one. Such a name can't be asked for, however it is encoded; an error here
// is better than a wrong file.
func unambiguous(path string) error {
	why := ""
	switch {
	case strings.ContainsRune(path, '#'):
		why = "a #, which the server refuses"
	case hasPercentEscape(path):
		why = "a percent sign and two hexadecimal digits, which the server decodes"
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		why = "a control character, which the server escapes"
	case losesDelimiter(path):
		why = "a last ? or ; that the server drops"
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("the tracking server can't be asked for %q: its name has %s", path, why)
}

func hasPercentEscape(s string) bool {
	for i := 0; i+2 < len(s); i++ {
		if s[i] == '%' && isHex(s[i+1]) && isHex(s[i+2]) {
			return true
		}
	}
	return false
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// losesDelimiter follows Python's urlunparse(urlparse(path)), which drops an
// empty query and empty params of the last segment.
func losesDelimiter(path string) bool {
	path, query, found := strings.Cut(path, "?")
	if found && query == "" {
		return true
	}
	last := path[strings.LastIndexByte(path, '/')+1:]
	_, params, found := strings.Cut(last, ";")
	return found && params == ""
}
