package rest

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/ini"
)

// AWSSection is a section of a file of ~/.aws. A key of an indented block below
// another key is both, with a dot between.
type AWSSection map[string]string

// awsFiles are ~/.aws/config with ~/.aws/credentials over it.
type awsFiles struct {
	config, credentials string // where they are

	profiles, services map[string]AWSSection
}

// readAWSFiles reads both files as botocore does (botocore.session.full_config). A
// file that is not there is empty.
func readAWSFiles(env Env, home string) (awsFiles, error) {
	place := func(variable, usual string) string {
		return InHome(os.Expand(cmp.Or(env(variable), usual), env), home)
	}
	out := awsFiles{
		config: place("AWS_CONFIG_FILE", "~/.aws/config"), credentials: place("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
		profiles: map[string]AWSSection{}, services: map[string]AWSSection{},
	}
	config, err := readAWSFile(out.config)
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
	credentials, err := readAWSFile(out.credentials)
	for name, s := range credentials {
		if out.profiles[name] == nil {
			out.profiles[name] = AWSSection{}
		}
		for k, v := range s {
			out.profiles[name][k] = v
		}
	}
	return out, err
}

func readAWSFile(name string) (map[string]AWSSection, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var sections map[string]AWSSection
	if err == nil {
		sections, err = parseAWS(string(b))
	}
	if err != nil {
		return nil, fmt.Errorf("the AWS configuration in %s: %w", name, err)
	}
	return sections, nil
}

// parseAWS reads a file as botocore does, with the blocks in it
// (botocore.configloader.raw_config_parse).
func parseAWS(file string) (map[string]AWSSection, error) {
	f, err := ini.Parse(file)
	if err != nil {
		return nil, err
	}
	out := map[string]AWSSection{}
	for name, values := range f.Sections() {
		out[name] = AWSSection{}
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
