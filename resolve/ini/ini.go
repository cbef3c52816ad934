// Package ini reads files of sections as Python's configparser does, with its
// defaults: whoever has a line that MLflow's client or botocore takes has it taken
// here, and as the same value.
package ini

import (
	"errors"
	"maps"
	"regexp"
	"strings"
)

// File is what a file holds: values by key in lower case, by section. [File.Get]
// gives a value with what it refers to put in, and [File.Sections] and [File.Own] values as
// they are written.
type File struct{ sections map[string]map[string]string }

// defaults is the section whose keys all sections have.
const defaults = "DEFAULT"

// ErrSyntax is why a file is refused. It quotes nothing: the line may be a password.
var ErrSyntax = errors.New("it is no file that Python's configparser reads")

// Parse reads as configparser's _read does: a line that is indented deeper than the
// key above it goes on with its value; a key ends at the first = or :; only a
// whole line is a comment; quotes are part of the value; what is there twice is an
// error.
func Parse(text string) (File, error) {
	p := parser{File: File{map[string]map[string]string{}}}
	for _, line := range strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n") {
		if err := p.line(line); err != nil {
			return File{}, err
		}
	}
	p.end()
	return p.File, nil
}

// parser is where the reading of a file has come to.
type parser struct {
	File
	section, key string              // empty before the first
	indent       int                 // of the key's line
	values       map[string][]string // of the section that is being read: the lines of each
}

var sectionLine = regexp.MustCompile(`^\[(.+)\]`)

func (p *parser) line(line string) error {
	value := strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(value, "#"), strings.HasPrefix(value, ";"):
		return nil
	case value == "":
		if p.key != "" {
			p.values[p.key] = append(p.values[p.key], "")
		}
		return nil
	}
	deep := strings.Index(line, value)
	if p.key != "" && deep > p.indent {
		p.values[p.key] = append(p.values[p.key], value)
		return nil
	}
	p.indent = deep
	if m := sectionLine.FindStringSubmatch(value); m != nil {
		return p.begin(m[1])
	}
	at := strings.IndexAny(value, "=:")
	if p.section == "" || at <= 0 {
		return ErrSyntax // a line before any section, or no key
	}
	p.key = strings.ToLower(strings.TrimSpace(value[:at]))
	_, before := p.sections[p.section][p.key]
	if _, now := p.values[p.key]; before || now {
		return ErrSyntax // twice
	}
	p.values[p.key] = []string{strings.TrimSpace(value[at+1:])}
	return nil
}

// begin begins a section.
func (p *parser) begin(section string) error {
	p.end()
	p.section, p.key = section, ""
	if p.sections[section] != nil && section != defaults {
		return ErrSyntax // twice
	}
	if p.sections[section] == nil {
		p.sections[section] = map[string]string{}
	}
	return nil
}

// end takes the values of the section that has been read.
func (p *parser) end() {
	for k, v := range p.values {
		p.sections[p.section][k] = strings.TrimRight(strings.Join(v, "\n"), " \t\r\n\v\f")
	}
	p.values = map[string][]string{}
}

// Sections are the values as they are written, with the defaults in each section.
func (f File) Sections() map[string]map[string]string {
	out := map[string]map[string]string{}
	for name, own := range f.sections {
		if name == defaults {
			continue
		}
		out[name] = map[string]string{}
		maps.Copy(out[name], f.sections[defaults])
		maps.Copy(out[name], own)
	}
	return out
}

// Own are a section's own values as they are written, without the defaults; nil where it
// is not there. DEFAULT is one, too.
func (f File) Own(section string) map[string]string { return f.sections[section] }

// Get is the value of key, with what it refers to put in (BasicInterpolation); empty
// where the section or the key is not there.
func (f File) Get(section, key string) (string, error) {
	if f.sections[section] == nil {
		return "", nil
	}
	var b strings.Builder
	err := f.expand(&b, section, f.raw(section, key), 1)
	return b.String(), err
}

func (f File) raw(section, key string) string {
	if v, ok := f.sections[section][key]; ok {
		return v
	}
	return f.sections[defaults][key]
}

func (f File) has(section, key string) bool {
	_, here := f.sections[section][key]
	_, all := f.sections[defaults][key]
	return here || all
}

// maxDepth is how deep references may refer to references (configparser's
// MAX_INTERPOLATION_DEPTH).
const maxDepth = 10

var reference = regexp.MustCompile(`^%\(([^)]+)\)s`)

func (f File) expand(b *strings.Builder, section, rest string, depth int) error {
	if depth > maxDepth {
		return ErrSyntax
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
		m := reference.FindStringSubmatch("%" + after)
		if m == nil {
			return ErrSyntax // a % that is not written twice
		}
		key := strings.ToLower(m[1])
		if !f.has(section, key) {
			return ErrSyntax
		}
		if err := f.expand(b, section, f.raw(section, key), depth+1); err != nil {
			return err
		}
		rest = after[len(m[0])-1:]
	}
}
