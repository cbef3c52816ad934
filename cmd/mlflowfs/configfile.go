package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// configFile is the file of settings; empty where there is none.
func (o *options) configFile() string {
	if o.File != "" {
		return o.File
	}
	var files []string
	if dir := userDir(o.getenv, "XDG_CONFIG_HOME", ".config"); dir != "" {
		files = append(files, filepath.Join(dir, "mlflowfs", "config.yaml"))
	}
	for _, f := range append(files, systemConfig) {
		if _, err := os.Stat(f); err == nil {
			return f
		}
	}
	return ""
}

// readConfig reads a file of settings: a map from their names to values. A list is what
// a flag takes with commas.
func readConfig(path string) (keys map[string]string, err error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration file: %w", err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, usageError{fmt.Errorf("%s is no YAML of the form `name: value`: %w", path, err)}
	}
	known := settingNames()
	keys = map[string]string{}
	for key, v := range doc {
		if !slices.Contains(known, key) {
			return nil, usageError{fmt.Errorf("%s: there is no setting %q; do you mean %q? (docs/configuration.md has all)", path, key, nearest(key, known))}
		}
		switch v := v.(type) {
		case nil:
			keys[key] = ""
		case []any:
			var list []string
			for _, x := range v {
				list = append(list, fmt.Sprint(x))
			}
			keys[key] = strings.Join(list, ",")
		case map[string]any:
			return nil, usageError{fmt.Errorf("%s: %s must be one value, or a list", path, key)}
		default:
			keys[key] = fmt.Sprint(v)
		}
	}
	return keys, nil
}

// nearest is the name of names that begins with the word, or that takes the
// fewest changes to become.
func nearest(word string, names []string) (best string) {
	least := 1 << 30
	for _, n := range names {
		d := distance(word, n)
		if strings.HasPrefix(n, word) {
			d = 1
		}
		if d < least {
			least, best = d, n
		}
	}
	return best
}

// distance is Levenshtein's: how many letters are to be put in, taken out or
// changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
