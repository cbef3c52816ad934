package gcs

import "testing"

// TestConfigIsReadFromTheEnvironment fails when the emulator, or the file of credentials,
// is another than the variables name, or when a file that the user did not name must be
// there.
func TestConfigIsReadFromTheEnvironment(t *testing.T) {
	t.Parallel()
	const usual = "/home/u/.config/gcloud/application_default_credentials.json"
	for name, c := range map[string]struct {
		env  map[string]string
		want Config
	}{
		"nothing set":  {nil, Config{Credentials: usual}},
		"emulator":     {map[string]string{"STORAGE_EMULATOR_HOST": "localhost:4443"}, Config{Emulator: "localhost:4443", Credentials: usual}},
		"gcloud":       {map[string]string{"CLOUDSDK_CONFIG": "/cfg"}, Config{Credentials: "/cfg/application_default_credentials.json"}},
		"named":        {map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/key.json", "CLOUDSDK_CONFIG": "/cfg"}, Config{Credentials: "/key.json", Named: true}},
		"named, empty": {map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": ""}, Config{Credentials: usual}},
	} {
		if got := FromEnv(func(name string) string { return c.env[name] }, "/home/u"); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
