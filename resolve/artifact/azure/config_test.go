package azure

import "testing"

// TestConfigIsReadFromTheEnvironment fails when a container of wasbs:// or abfss:// is
// opened with another kind of credential than the variables give for its scheme, or when
// one is put before another.
func TestConfigIsReadFromTheEnvironment(t *testing.T) {
	t.Parallel()
	all := map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a", "AZURE_STORAGE_ACCESS_KEY": "key", "AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=x"}
	for name, c := range map[string]struct {
		scheme string
		env    map[string]string
		want   Config
	}{
		"blobs, nothing set":         {Blobs, nil, Config{SASLast: true}},
		"blobs":                      {Blobs, all, Config{ConnectionString: "AccountName=a", AccessKey: "key", SASToken: "sv=1&sig=x", SASLast: true}},
		"blobs, by the key":          {Blobs, map[string]string{"AZURE_STORAGE_ACCESS_KEY": "key"}, Config{AccessKey: "key", SASLast: true}},
		"a data lake, nothing set":   {DataLake, nil, Config{}},
		"a data lake":                {DataLake, all, Config{SASToken: "sv=1&sig=x"}},
		"a data lake, without its ?": {DataLake, map[string]string{"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x"}, Config{SASToken: "sv=1&sig=x"}},
	} {
		if got := FromEnv(func(name string) string { return c.env[name] }, c.scheme); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
