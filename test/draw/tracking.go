package draw

import (
	"fmt"
	"path/filepath"
)

// Tracking adds to e what tells a tracking server who asks: variables,
// ~/.mlflow/credentials, netrc files, the URI's own user, and Kubernetes's files, whose
// service account is in the directory "account" of the home.
func (d Draw) Tracking(e *Environment) {
	home := e.Env["HOME"]
	at := func(name string) string { return filepath.Join(home, name) }
	e.Env["KUBECONFIG"] = at("none")
	d.Set(*e, 4, "MLFLOW_TRACKING_USERNAME", "env-user", "é", "")
	d.Set(*e, 4, "MLFLOW_TRACKING_PASSWORD", "env-password", "日本", "")
	d.Set(*e, 3, "MLFLOW_TRACKING_TOKEN", "env-token", "")
	d.Set(*e, 4, "MLFLOW_WORKSPACE", "team-a", " team-b ", "")
	if d.Odds(2) {
		e.Files[".mlflow/credentials"] = d.ini()
	}
	if d.Odds(3) {
		e.Files[d.One(".netrc", ".netrc", "_netrc", "named")] = d.netrc()
		d.Set(*e, 3, "NETRC", at("named"), "~/named")
	}
	if d.Odds(4) {
		e.Env["MLFLOW_TRACKING_AUTH"] = d.One("kubernetes", "kubernetes-namespaced", "kubernetes-namespaced", "unknown")
		if d.Odds(3) {
			e.Files["account/token"] = d.One("pod-token\n", "pod-token", " \n")
		}
		if d.Odds(3) {
			e.Files["account/namespace"] = "team-pod\n"
		}
		e.Files["k1"], e.Files["k2"], e.Files["tok"] = d.kubeconfig(), d.kubeconfig(), "file-token"
		e.Env["KUBECONFIG"] = d.One(at("k1"), at("k1")+":"+at("k2"), at("none"))
	}
	e.User = d.One("", "", "", "", "", "x:y@", "x@", "x:@", ":y@", "a%20b:p%40%C3%A9@")
}

// Signed adds to e what has requests to a tracking server signed as AWS's.
func (d Draw) Signed(e *Environment) {
	e.Env["MLFLOW_TRACKING_AWS_SIGV4"] = d.One("true", "true", "1", "false")
	d.Set(*e, 2, "AWS_DEFAULT_REGION", "eu-west-3")
	d.Set(*e, 4, "AWS_REGION", "us-east-2")
	if d.IntN(4) > 0 {
		e.Env["AWS_ACCESS_KEY_ID"], e.Env["AWS_SECRET_ACCESS_KEY"] = "AKIDTRACKING", "s3cret"
		d.Set(*e, 4, "AWS_SESSION_TOKEN", "session", "")
	} else {
		e.Files[".aws/credentials"] = "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = other\n"
		e.Files[".aws/config"] = d.One("", "[default]\nregion = eu-north-1\n")
	}
}

// ini is a credentials file: mostly one that configparser reads.
func (d Draw) ini() (text string) {
	for range d.IntN(3) {
		text += d.One("# note\n", "\n", "; note = 1\n", "[DEFAULT]\nwho = dan%%\nmlflow_tracking_password = all\n", "[other]\nx = 1\n")
	}
	text += d.One("[mlflow]", "[mlflow]", "[mlflow]", "[mlflow] ; note", "[MLflow]", "[DEFAULT]", " [mlflow]") + d.One("\n", "\r\n")
	keys := []string{"mlflow_tracking_username", "mlflow_tracking_password", "MLFLOW_Tracking_Password", "other"}
	for _, i := range d.Perm(3) {
		text += d.One("", "", "", " ", "\t", "# note\n", "\n") + keys[i+d.IntN(2)] + d.One(" = ", "=", ":", " : ")
		text += d.One("plain", "pa%%ss", `"quoted"`, `back\`, "a;b#c", "a # b", "x ; y", "%(who)s!", "%(mlflow_tracking_username)s2", "100%", "é", "日本", "a=b:c", "", "'one'", "%(none)s", "[mlflow]", "tail  ")
		text += d.One("\n", "\n", "\n", "\n", "\n  more\n", "\n\n\tmore\n", "\n # note\n more\n", "\r\n", "")
	}
	return text
}

// netrc is a netrc file: mostly one that Python reads.
func (d Draw) netrc() (text string) {
	gap := func() string { return d.One(" ", " ", "\n", "\n\t", "  ") }
	for range 1 + d.IntN(3) {
		text += d.One("machine 127.0.0.1", "machine 127.0.0.1", "machine localhost", "machine LOCALHOST", "machine other", "default", "# note\nmachine localhost", `machine "localhost"`, "macdef m\nget x\n\nmachine localhost")
		for range d.IntN(4) {
			text += gap() + d.One("login", "login", "user", "password", "password", "password", "account", "login", "#note\n login", "# a note\n password", "port")
			text += gap() + d.One("ann", "s3cret", `"two words"`, `b\"s`, "p#q", "é", "日本", `""`, `a\ b`, "#x", `x"y"`)
		}
		text += d.One("\n", "\n", " ", " # end\n")
	}
	return text
}

func (d Draw) kubeconfig() string {
	user := d.One("{token: kube-token}", "{token: Bearer kube-token}", "{token: Basic eDp5}", "{tokenFile: tok}", "{token: '', tokenFile: tok}", "{username: u, password: p}",
		`{exec: {apiVersion: v1, command: sh, args: [-c, 'echo "{\"apiVersion\":\"v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"$T\"}}"'], env: [{name: T, value: exec-token}]}}`,
		"{exec: {apiVersion: v1, command: 'false'}}", "{auth-provider: {name: gcp, config: {access-token: gcp-token}}}")
	return fmt.Sprintf("current-context: %s\nclusters: [{name: c, cluster: {server: 'https://h'}}]\ncontexts: [{name: a, context: {cluster: c, user: u%s}}, {name: b, context: {cluster: c, user: v}}]\nusers: [{name: u, user: %s}]\n",
		d.One("a", "a", "a", "b", "none"), d.One(", namespace: team-k", ""), user)
}
