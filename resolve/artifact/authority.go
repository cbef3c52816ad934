package artifact

import (
	"fmt"
	"strconv"
	"strings"
)

// Authority is what a URI says of a host, as Python's urllib.parse reads it: nothing is
// decoded, and the host is in lower case.
type Authority struct {
	User, Password string
	HasPassword    bool
	Host           string // without the brackets of an IPv6 address; may be empty
	Port           int    // 0: none is named
}

// ParseAuthority reads what stands between // and the next slash of a URI. Its error
// quotes nothing: a part of it may be a password.
func ParseAuthority(s string) (a Authority, err error) {
	host := s
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		host = s[i+1:]
		a.User, a.Password, a.HasPassword = strings.Cut(s[:i], ":")
	}
	port := ""
	if behind, ok := strings.CutPrefix(host, "["); ok {
		if a.Host, behind, ok = strings.Cut(behind, "]"); !ok {
			return Authority{}, fmt.Errorf("a URI has a [ without a ]")
		}
		if port, ok = strings.CutPrefix(behind, ":"); !ok && behind != "" {
			return Authority{}, fmt.Errorf("a URI has something other than a port behind the ]")
		}
	} else {
		a.Host, port, _ = strings.Cut(host, ":")
	}
	if port != "" {
		a.Port, err = strconv.Atoi(port)
		if err != nil || a.Port < 1 || a.Port > 65535 || strings.Trim(port, "0123456789") != "" {
			return Authority{}, fmt.Errorf("a URI has a port that is none (a password with a / in it can't stand in a URI)")
		}
	}
	if strings.ContainsFunc(a.Host, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`\?#%"'<>`, r) }) {
		return Authority{}, fmt.Errorf("a URI has a host whose name no host has")
	}
	a.Host = strings.ToLower(a.Host)
	return a, nil
}

// String is the host with the user and the port that are named, and without the password:
// two authorities are the same place for the same user where these are equal.
func (a Authority) String() string {
	s := a.Host
	if strings.ContainsRune(s, ':') {
		s = "[" + s + "]"
	}
	if a.User != "" {
		s = a.User + "@" + s
	}
	if a.Port != 0 {
		s += ":" + strconv.Itoa(a.Port)
	}
	return s
}
