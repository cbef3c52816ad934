package rest

import "strings"

// Redact is a URI as it may be shown: without user, password and query.
func Redact(uri string) string {
	i := strings.Index(uri, "://")
	if i < 0 {
		return uri
	}
	scheme, rest := uri[:i+3], uri[i+3:]
	if IsDatabase(uri) || strings.HasPrefix(strings.ToLower(uri), "sftp://") {
		switch at := strings.IndexByte(rest, '@'); {
		case at < 0:
		case strings.ContainsAny(rest[:at], "?#") || strings.Contains(rest[at+1:], "@"):
			return scheme + "…" // what is a password here is a guess
		default:
			rest = rest[at+1:]
		}
	}
	if j := strings.IndexAny(rest, "?#"); j >= 0 {
		rest = rest[:j]
	}
	host, path := rest, ""
	if j := strings.IndexByte(rest, '/'); j >= 0 {
		host, path = rest[:j], rest[j:]
	}
	if j := strings.LastIndexByte(host, '@'); j >= 0 {
		host = host[j+1:]
	} else if j := strings.LastIndexByte(path, '@'); j >= 0 && scheme != "file://" && scheme != "sqlite://" {
		return scheme + "…" // a password with a / in it: nothing here is safe to show
	}
	return scheme + host + path
}

// IsDatabase tells whether a URI is of a database server, by SQLAlchemy's rules: a ?, a #
// or a / may stand in its password.
func IsDatabase(uri string) bool {
	scheme, _, ok := strings.Cut(strings.ToLower(uri), "://")
	scheme, _, _ = strings.Cut(scheme, "+")
	return ok && (scheme == "postgresql" || scheme == "postgres" || scheme == "mysql" || scheme == "mssql")
}

// ServerOf is what leads to the server of a URI: its scheme and host, as they
// may be shown.
func ServerOf(uri string) string {
	scheme, rest, ok := strings.Cut(Redact(uri), "://")
	if !ok {
		return uri
	}
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + host
}
