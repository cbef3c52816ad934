package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDoctorNamesWhatIsNotHonoured fails when a variable that is set and not honoured is
// not named by doctor, when one is named that is honoured, or with its value, which may be
// a secret.
func TestDoctorNamesWhatIsNotHonoured(t *testing.T) {
	t.Parallel()
	for _, v := range unhonoured {
		check := func(value string) []finding {
			return checkVariables((&process{environ: []string{v.name + "=" + value}}).getenv)
		}
		out := check("s3cret")
		if len(out) != 1 || !strings.HasPrefix(out[0].words, v.name+" ") || strings.Contains(out[0].words, "s3cret") {
			t.Errorf("%s: %+v", v.name, out)
		}
		for _, value := range append(v.but, "") {
			if out := check(value); len(out) != 0 {
				t.Errorf("%s=%s: %+v", v.name, value, out)
			}
		}
	}
}

var (
	namedVariable = regexp.MustCompile(`"((?:MLFLOW|MLFLOWFS|DATABRICKS|AWS|AZURE|GOOGLE|CLOUDSDK|STORAGE|REQUESTS|CURL)_[A-Z0-9_]+|KUBECONFIG|NETRC|REQUEST_METHOD)"`)
	environment   = regexp.MustCompile(`\bos\.(Getenv|LookupEnv|Environ|ExpandEnv|Setenv|Unsetenv|Clearenv|UserHomeDir|UserCacheDir|UserConfigDir)\(|http\.ProxyFromEnvironment`)
)

// sources are the files of the program, by their names from the repository's root.
func sources(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"cmd", "fs", "resolve", "cache"} {
		err := filepath.WalkDir("../../"+dir, func(name string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			b, err := os.ReadFile(name)
			all[strings.TrimPrefix(name, "../../")] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestEnvironmentIsReadOnce fails when something else than the program's main reads the
// environment: it would see neither the settings nor what a test says.
func TestEnvironmentIsReadOnce(t *testing.T) {
	t.Parallel()
	may := map[string]string{
		"cmd/mlflowfs/process.go":      "reads it, once",
		"cmd/mlflowfs/holder_linux.go": "gives it to the daemon, without what is its own",
		"fs/fusefs/device_linux.go":    "gives it to fusermount3",
		"resolve/rest/kubernetes.go":   "gives all of it to kubeconfig's program",
	}
	for name, text := range sources(t) {
		if found := environment.FindString(text); found != "" && may[name] == "" {
			t.Errorf("%s: %s", name, found)
		} else if found == "" && may[name] != "" {
			t.Errorf("%s does no longer what it may: %s", name, may[name])
		}
	}
}

// TestEachVariableIsListed fails when the code reads a variable that the page of settings
// does not name, or one that it says is not followed; or when one that it names is read
// nowhere.
func TestEachVariableIsListed(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{} // read
	for _, s := range settings {
		for _, v := range s.variables() {
			listed[v] = true // by options.read
		}
	}
	for _, f := range followed {
		for _, v := range f.names {
			if _, twice := listed[v]; twice {
				t.Errorf("%s is listed twice", v)
			}
			listed[v] = false
		}
	}
	for _, v := range unhonoured {
		if _, twice := listed[v.name]; twice && len(v.but) == 0 {
			t.Errorf("%s is said to be followed, and not to be", v.name)
		}
	}
	for _, other := range []string{
		readyFD, lifeFD, beatFD, holderFD, ownPoint, automountVariable, copyVariable,
		"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_DOMAIN", // gocloud's, and part of a location
		"MLFLOW_EXPERIMENT", // no variable: MLflow's word for where a trace is
	} {
		listed[other] = true
	}
	for name, text := range sources(t) {
		if name == "cmd/mlflowfs/variables.go" {
			continue
		}
		for _, m := range namedVariable.FindAllStringSubmatch(text, -1) {
			if _, ok := listed[m[1]]; !ok {
				t.Errorf("%s reads %s", name, m[1])
			}
			listed[m[1]] = true
		}
	}
	for v, read := range listed {
		if !read && namedVariable.MatchString(strconv.Quote(v)) {
			t.Errorf("%s is read nowhere", v)
		}
	}
}
