package rest

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// login is an entry of a netrc file.
type login struct{ user, account, password string }

// netrcFile is the file that Python's requests takes: NETRC, else ~/.netrc, else
// ~/_netrc; empty where there is none.
func netrcFile(env Env) string {
	names := []string{filepath.Join(env("HOME"), ".netrc"), filepath.Join(env("HOME"), "_netrc")}
	if named := env("NETRC"); named != "" {
		names = []string{InHome(named, env("HOME"))}
	} else if env("HOME") == "" {
		return "" // and not one of the working directory
	}
	for _, name := range names {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return ""
}

// InHome is the path of a file that may be written with a ~ for the user's home.
func InHome(name, home string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		return filepath.Join(home, rest)
	}
	return name
}

// netrcFor is the user and the password of the netrc file's entry for a host, or of
// its default entry. As in requests, a file that can't be read, or understood, is
// as one without entries.
func netrcFor(host string, env Env) (user, password string, ok bool) {
	if user, password, ok = netrcNaming(host, env); !ok {
		user, password, ok = netrcNaming("default", env)
	}
	return user, password, ok && user+password != ""
}

// netrcNaming is the entry of that name alone, which may be empty.
func netrcNaming(name string, env Env) (user, password string, ok bool) {
	b, err := os.ReadFile(netrcFile(env))
	if err != nil {
		return "", "", false
	}
	entries, err := parseNetrc(string(b))
	e, ok := entries[name]
	return cmp.Or(e.user, e.account), e.password, ok && err == nil
}

// AllowOtherVariable is true where other users see what is read.
const AllowOtherVariable = "MLFLOWFS_ALLOW_OTHER"

// netrcTransport adds, as requests does, the user and password of the netrc file's entry
// for a host to what is sent there without any: to a web address, another server's
// artifact API, and where a redirect leads. A host that the file does not name gets
// none, be there a default entry or not; nor does a signed URL, with which AWS
// refuses a second credential. Where other users see what is read, a server's word leads
// to no more than what anybody may read.
type netrcTransport struct {
	next http.RoundTripper
	env  Env
}

func (t netrcTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("Authorization") == "" && req.Context().Value(signedKey{}) == nil && !Truthy(t.env(AllowOtherVariable)) {
		if user, password, ok := netrcNaming(req.URL.Hostname(), t.env); ok && user+password != "" {
			req = req.Clone(req.Context())
			req.SetBasicAuth(latin1(user), latin1(password))
		}
	}
	return t.next.RoundTrip(req)
}

type signedKey struct{}

// WithSigned says that the requests with ctx are for a signed URL.
func WithSigned(ctx context.Context) context.Context {
	return context.WithValue(ctx, signedKey{}, true)
}

var errNetrc = errors.New("it is no file that Python's netrc reads")

// parseNetrc reads as Python's netrc module does: the last entry of a host wins.
func parseNetrc(text string) (map[string]login, error) {
	x := &netrcLexer{rest: []rune(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text))}
	entries := map[string]login{}
	for {
		line := x.line
		var name string
		switch word := x.token(); {
		case word == "":
			return entries, nil
		case word[0] == '#':
			if x.line == line && word == "#" {
				x.readLine()
			}
			continue
		case word == "machine":
			name = x.token()
		case word == "default":
			name = word
		case word == "macdef":
			x.token()
			for {
				l := x.readLine()
				if l == "" {
					return nil, errNetrc // no empty line ends it
				}
				if l == "\n" {
					break
				}
			}
			continue
		default:
			return nil, errNetrc
		}
		if name == "" {
			return nil, errNetrc
		}
		e, err := x.entry()
		if err != nil {
			return nil, err
		}
		entries[name] = e
	}
}

// netrcLexer cuts a netrc file into words.
type netrcLexer struct {
	rest   []rune
	line   int
	pushed *string // a word that was read too far
}

// entry reads what follows a machine's name.
func (x *netrcLexer) entry() (e login, err error) {
	for {
		line := x.line
		word := x.token()
		switch {
		case strings.HasPrefix(word, "#"):
			if x.line == line {
				x.readLine()
			}
		case word == "" || word == "machine" || word == "default" || word == "macdef":
			x.pushed = &word
			return e, nil
		case word == "login" || word == "user":
			e.user = x.token()
		case word == "account":
			e.account = x.token()
		case word == "password":
			e.password = x.token()
		default:
			return e, errNetrc
		}
	}
}

// char is the next character; ok is false at the end.
func (x *netrcLexer) char() (c rune, ok bool) {
	if len(x.rest) == 0 {
		return 0, false
	}
	c, x.rest = x.rest[0], x.rest[1:]
	if c == '\n' {
		x.line++
	}
	return c, true
}

// readLine takes what is left of a line, and its end; it is not counted.
func (x *netrcLexer) readLine() string {
	n := 0
	for n < len(x.rest) && x.rest[n] != '\n' {
		n++
	}
	n = min(n+1, len(x.rest))
	l := string(x.rest[:n])
	x.rest = x.rest[n:]
	return l
}

// token is the next word, in quotes or not; empty at the end. A backslash takes the
// character after it as it is.
func (x *netrcLexer) token() string {
	if x.pushed != nil {
		word := *x.pushed
		x.pushed = nil
		return word
	}
	c, ok := x.char()
	for ok && strings.ContainsRune("\n\t\r ", c) {
		c, ok = x.char()
	}
	if !ok {
		return ""
	}
	ends := "\n\t\r "
	if c == '"' {
		ends = `"`
		c, ok = x.char()
	}
	var word strings.Builder
	for first := ends != `"`; ok && (first || !strings.ContainsRune(ends, c)); first = false {
		if c == '\\' {
			if c, ok = x.char(); !ok {
				break
			}
		}
		word.WriteRune(c)
		c, ok = x.char()
	}
	return word.String()
}
