package s3

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// section is a section of a file of ~/.aws. A key of an indented block below
// another key is both, with a dot between.
type section map[string]string

// awsFiles are ~/.aws/config with ~/.aws/credentials over it.
type awsFiles struct {
	config, credentials string // where they are

	profiles, services map[string]section
}

// readFiles reads both files as botocore does (botocore.session.full_config). A
// file that is not there is empty.
func readFiles(env rest.Env, home string) (awsFiles, error) {
	place := func(variable, usual string) string {
		return rest.InHome(os.Expand(cmp.Or(env(variable), usual), env), home)
	}
	out := awsFiles{
		config: place("AWS_CONFIG_FILE", "~/.aws/config"), credentials: place("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
		profiles: map[string]section{}, services: map[string]section{},
	}
	config, err := readFile(out.config)
	if err != nil {
		return out, err
	}
	for name, s := range config {
		kind, of, _ := strings.Cut(name, " ")
		of = strings.Trim(strings.TrimSpace(of), `"'`)
		switch {
		case name == "default":
			out.profiles[name] = s
		case of == "":
		case kind == "profile":
			out.profiles[of] = s
		case kind == "services":
			out.services[of] = s
		}
	}
	credentials, err := readFile(out.credentials)
	for name, s := range credentials {
		if out.profiles[name] == nil {
			out.profiles[name] = section{}
		}
		for k, v := range s {
			out.profiles[name][k] = v
		}
	}
	return out, err
}

func readFile(name string) (map[string]section, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the AWS configuration: %w", err)
	}
	return parse(string(b)), nil
}

// parse reads a file by the rules of Python's configparser, and the blocks in it
// by botocore's (botocore.configloader.raw_config_parse).
func parse(file string) map[string]section {
	out := map[string]section{}
	var in section
	var outer string // the key whose value was empty, so that a block may follow
	for line := range strings.Lines(file) {
		text := strings.TrimSpace(line)
		indented := line[0] == ' ' || line[0] == '\t'
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
			continue
		case text[0] == '[' && !indented:
			name, _, _ := strings.Cut(text[1:], "]")
			if in = out[name]; in == nil {
				in = section{}
				out[name] = in
			}
			outer = ""
			continue
		}
		if indented && outer != "" {
			if k, v, ok := strings.Cut(text, "="); ok {
				in[outer+"."+strings.TrimSpace(k)] = strings.TrimSpace(v)
			}
			continue
		}
		i := strings.IndexAny(text, "=:")
		if in == nil || i < 0 {
			continue
		}
		key, value := strings.ToLower(strings.TrimSpace(text[:i])), strings.TrimSpace(text[i+1:])
		in[key] = value
		if outer = ""; value == "" {
			outer = key
		}
	}
	return out
}
