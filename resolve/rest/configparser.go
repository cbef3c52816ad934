package rest

import (
	"errors"
	"regexp"
	"strings"
)

// iniFile is a file of sections as Python's configparser.ConfigParser reads it, with
// its defaults: raw values by key in lower case, by section. Whoever has a line that
// MLflow takes has it taken here, and as the same value.
type iniFile map[string]map[string]string

// The section whose keys all sections have, and Python's patterns.
const iniDefaults = "DEFAULT"

var (
	iniSection   = regexp.MustCompile(`^\[(.+)\]`)
	iniReference = regexp.MustCompile(`^%\(([^)]+)\)s`)
)

// errINI is why a file is refused. It quotes nothing: the line may be a password.
var errINI = errors.New("it is no file that Python's configparser reads")

// parseINI reads as configparser's _read does: a line that is indented deeper than the
// key above it goes on with its value; a key ends at the first = or :; only a
// whole line is a comment; quotes are part of the value; what is there twice is an
// error.
func parseINI(text string) (iniFile, error) {
	f := iniFile{}
	var section, key string
	indent := 0
	lines := map[string][]string{} // of the section that is being read
	end := func() {
		for k, v := range lines {
			f[section][k] = strings.TrimRight(strings.Join(v, "\n"), " \t\r\n\v\f")
		}
		lines = map[string][]string{}
	}
	for _, line := range strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n") {
		value := strings.TrimSpace(line)
		if strings.HasPrefix(value, "#") || strings.HasPrefix(value, ";") {
			continue
		}
		if value == "" {
			if key != "" {
				lines[key] = append(lines[key], "")
			}
			continue
		}
		deep := strings.Index(line, value)
		if key != "" && deep > indent {
			lines[key] = append(lines[key], value)
			continue
		}
		indent = deep
		if m := iniSection.FindStringSubmatch(value); m != nil {
			end()
			section, key = m[1], ""
			if f[section] != nil && section != iniDefaults {
				return nil, errINI // twice
			}
			if f[section] == nil {
				f[section] = map[string]string{}
			}
			continue
		}
		at := strings.IndexAny(value, "=:")
		if section == "" || at <= 0 {
			return nil, errINI // a line before any section, or no key
		}
		key = strings.ToLower(strings.TrimSpace(value[:at]))
		_, before := f[section][key]
		if _, now := lines[key]; before || now {
			return nil, errINI // twice
		}
		lines[key] = []string{strings.TrimSpace(value[at+1:])}
	}
	end()
	return f, nil
}

// get is the value of key, with what it refers to put in (BasicInterpolation); empty
// where the section or the key is not there.
func (f iniFile) get(section, key string) (string, error) {
	if f[section] == nil {
		return "", nil
	}
	var b strings.Builder
	err := f.expand(&b, section, f.raw(section, key), 1)
	return b.String(), err
}

func (f iniFile) raw(section, key string) string {
	if v, ok := f[section][key]; ok {
		return v
	}
	return f[iniDefaults][key]
}

func (f iniFile) has(section, key string) bool {
	_, here := f[section][key]
	_, all := f[iniDefaults][key]
	return here || all
}

// iniDepth is how deep references may refer to references (configparser's
// MAX_INTERPOLATION_DEPTH).
const iniDepth = 10

func (f iniFile) expand(b *strings.Builder, section, rest string, depth int) error {
	if depth > iniDepth {
		return errINI
	}
	for {
		plain, after, more := strings.Cut(rest, "%")
		b.WriteString(plain)
		if !more {
			return nil
		}
		if strings.HasPrefix(after, "%") {
			b.WriteByte('%')
			rest = after[1:]
			continue
		}
		m := iniReference.FindStringSubmatch("%" + after)
		if m == nil {
			return errINI // a % that is not written twice
		}
		key := strings.ToLower(m[1])
		if !f.has(section, key) {
			return errINI
		}
		if err := f.expand(b, section, f.raw(section, key), depth+1); err != nil {
			return err
		}
		rest = after[len(m[0])-1:]
	}
}
