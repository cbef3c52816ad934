package sftp

import (
	"path"
	"path/filepath"
	"strings"
)

// hostConfig is what ~/.ssh/config says of a host, as far as MLflow's client heeds it
// (mlflow.store.artifact.sftp_artifact_repo), and which keys of an agent are offered. What
// names another way to the host (ProxyJump, ProxyCommand) is not followed, as there.
type hostConfig struct {
	hostName, user, port string
	identityFiles        []string
	identitiesOnly       bool
}

// readConfig reads what a file of ssh_config(5) says of a host, as paramiko reads it: the
// first value of a key counts, but of IdentityFile all do; files are not included, and a
// Match by anything but the host's name does not match.
func readConfig(text, host string) (c hostConfig) {
	values := map[string]string{}
	matches := true
	for line := range strings.Lines(text) {
		key, value, ok := cutKey(line)
		switch key = strings.ToLower(key); {
		case !ok:
		case key == "host":
			matches = matchesHost(words(value), host)
		case key == "match":
			matches = matchesAll(words(value), host)
		case !matches:
		case key == "identityfile":
			c.identityFiles = append(c.identityFiles, unquote(value))
		default:
			if _, has := values[key]; !has {
				values[key] = unquote(value)
			}
		}
	}
	c.hostName = strings.ReplaceAll(values["hostname"], "%h", host)
	c.user, c.port = values["user"], values["port"]
	c.identitiesOnly = strings.EqualFold(values["identitiesonly"], "yes")
	return c
}

// cutKey cuts a line into its key and its value, between which are spaces or one = sign.
func cutKey(line string) (key, value string, ok bool) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", false
	}
	i := strings.IndexAny(line, " \t=")
	if i < 0 {
		return line, "", false
	}
	value = strings.TrimLeft(line[i:], " \t")
	return line[:i], strings.TrimLeft(strings.TrimPrefix(value, "="), " \t"), true
}

func unquote(s string) string {
	if len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// words are the parts of a value; one in quotes may hold spaces.
func words(s string) (out []string) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] == '"' || s[0] == '\'' {
			word, behind, _ := strings.Cut(s[1:], s[:1])
			out, s = append(out, word), behind
			continue
		}
		i := strings.IndexAny(s, " \t")
		if i < 0 {
			i = len(s)
		}
		out, s = append(out, s[:i]), s[i:]
	}
	return out
}

// matchesHost tells whether one of the patterns is of the host, and none that begins with
// a ! is.
func matchesHost(patterns []string, host string) (is bool) {
	for _, p := range patterns {
		not := strings.HasPrefix(p, "!")
		// path.Match knows more than * and ?; a host's name has none of it.
		if ok, err := path.Match(strings.TrimPrefix(p, "!"), host); err == nil && ok {
			if not {
				return false
			}
			is = true
		}
	}
	return is
}

// matchesAll tells whether a Match is for the host, as far as its name says.
func matchesAll(criteria []string, host string) bool {
	for len(criteria) > 0 {
		switch key := strings.ToLower(criteria[0]); {
		case key == "all":
			criteria = criteria[1:]
		case (key == "host" || key == "originalhost") && len(criteria) > 1:
			if !matchesHost(strings.Split(criteria[1], ","), host) {
				return false
			}
			criteria = criteria[2:]
		default:
			return false
		}
	}
	return true
}

// expand puts in a path of a key what ssh_config(5) writes in short.
func expand(p, home, host, user, own string) string {
	if behind, ok := strings.CutPrefix(p, "~/"); ok {
		p = filepath.Join(home, behind)
	}
	return strings.NewReplacer("%%", "%", "%d", home, "%h", host, "%r", user, "%u", own).Replace(p)
}
