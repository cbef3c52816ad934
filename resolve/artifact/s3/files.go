package s3

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/ini"
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

// login is the profile of an SSO session that the credentials of a profile begin with:
// itself, or the source of its role. It is empty where they don't.
func (f awsFiles) login(name string) string {
	for range f.profiles { // which may lead to each other without end
		p := f.profiles[name]
		if p["sso_session"] != "" || p["sso_start_url"] != "" {
			return name
		}
		name = p["source_profile"]
	}
	return ""
}

func readFile(name string) (map[string]section, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var sections map[string]section
	if err == nil {
		sections, err = parse(string(b))
	}
	if err != nil {
		return nil, fmt.Errorf("the AWS configuration in %s: %w", name, err)
	}
	return sections, nil
}

// parse reads a file as botocore does, with the blocks in it
// (botocore.configloader.raw_config_parse).
func parse(file string) (map[string]section, error) {
	f, err := ini.Parse(file)
	if err != nil {
		return nil, err
	}
	out := map[string]section{}
	for name, values := range f.Sections() {
		out[name] = section{}
		for key, value := range values {
			if !strings.HasPrefix(value, "\n") {
				out[name][key] = value
				continue
			}
			for line := range strings.Lines(value[1:]) {
				k, v, ok := strings.Cut(line, "=")
				if !ok && strings.TrimSpace(line) != "" {
					return nil, ini.ErrSyntax
				}
				out[name][key+"."+strings.TrimSpace(k)] = strings.TrimSpace(v)
			}
		}
	}
	return out, nil
}
