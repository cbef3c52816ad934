package draw

import (
	"compress/gzip"
	"fmt"
	"strconv"
	"strings"
)

// AWS adds variables and files of AWS's that may contradict each other; endpoints are
// what its stores may be at.
func (d Draw) AWS(e *Environment, endpoints ...string) {
	maybe := func(name string, values ...string) { d.Set(*e, 3, name, values...) }
	maybe("MLFLOW_S3_ENDPOINT_URL", endpoints...)
	maybe("AWS_ENDPOINT_URL", endpoints...)
	maybe("AWS_ENDPOINT_URL_S3", endpoints...)
	maybe("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true", "false", "TRUE")
	maybe("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "auto", "path", "virtual", "virtual", "nonsense")
	maybe("MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION", "unsigned", "UNSIGNED", "s3v4")
	maybe("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "123456789012")
	maybe("AWS_DEFAULT_REGION", "eu-west-3", "us-east-1", "cn-north-1")
	maybe("AWS_PROFILE", "default", "dev", "missing")
	maybe("AWS_DEFAULT_PROFILE", "dev")
	if d.Odds(2) {
		e.Files[".aws/config"] = d.profile("default", endpoints) + d.profile("profile dev", endpoints) +
			"[services mine]\ns3 =\n  endpoint_url = " + endpoints[0] + "/of.services\nec2 =\n  endpoint_url = http://not.this\n[dev]\nendpoint_url = http://no.profile\n"
	}
	if d.Odds(4) {
		keys := "aws_access_key_id = OTHER\naws_secret_access_key = other\n"
		e.Files[".aws/credentials"] = d.profile("default", endpoints) + keys + d.profile("dev", endpoints) + keys
	}
}

func (d Draw) profile(name string, endpoints []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]\n# a comment\n", name)
	if d.Odds(2) {
		fmt.Fprintf(&b, "Region %s %s\n", d.One("=", ":"), d.One("us-west-2", "eu-central-1"))
	}
	if d.Odds(3) {
		fmt.Fprintf(&b, "endpoint_url=%s\n", d.One(endpoints...))
	}
	if d.Odds(3) {
		fmt.Fprintf(&b, "services = %s\n", d.One("mine", "mine", "none"))
	}
	if d.Odds(3) {
		fmt.Fprintf(&b, "s3 =\n  addressing_style = %s\n\n  ; another\n  use_dualstack_endpoint = %s\n", d.One("path", "virtual"), d.One("true", "false"))
	}
	if d.Odds(4) {
		fmt.Fprintf(&b, "ignore_configured_endpoint_urls = %s\n", d.One("true", "false"))
	}
	if d.Odds(5) { // what configparser takes as it is, puts together, or refuses
		b.WriteString(d.One("  services = mine ; none\n", "addressing = a\n  b\n", "endpoint_url =\n\n  http://no.block:9\n", "endpoint_url = http://twice:9\nEndpoint_url = http://twice:9\n", "alone\n"))
	}
	return b.String()
}

// Packed is the last name of the objects that are packed, and whose Content-Encoding is
// gzip.
const Packed = "packed.gz"

func pack(content string) string {
	var b strings.Builder
	w := gzip.NewWriter(&b)
	w.Write([]byte(content)) // into memory: can't fail
	w.Close()
	return b.String()
}

// Keys are n objects, some without content, below a directory root of a bucket, with
// stubs of directories, and a file and a directory of one name. Wild ones have parts, too,
// that no file can have for a name, and control characters. One more lies beside root.
func (d Draw) Keys(root string, n int, wild bool) map[string]string {
	keys := map[string]string{}
	names := []string{"model", "model", "model-1", "a", "b c", "é", "%41", "a+b", "a#b?c", "a:b", "__0x2f__", Packed}
	if wild {
		names = append(names, "x\by", "\x1f", ".", "..", "", strings.Repeat("n", 256))
	}
	prefix := prefixOf(root)
	for range n {
		var parts []string
		for range 1 + d.IntN(4) {
			parts = append(parts, d.One(names...))
		}
		key := prefix + strings.Join(parts, "/") + d.One("", "", "", "/")
		if keys[key] = ""; d.IntN(3) > 0 {
			keys[key] = "content of " + key
		}
		if strings.HasSuffix(key, "/"+Packed) {
			keys[key] = pack(keys[key])
		}
	}
	delete(keys, "") // which no object has
	keys[strings.TrimSuffix(prefix, "/")+"less/beside"] = "no"
	return keys
}

// Page adds to the keys below root a directory with more than a listing's page.
func Page(keys map[string]string, root string) {
	for i := range 1100 {
		keys[prefixOf(root)+"zz/"+strconv.Itoa(i)] = "z"
	}
}

func prefixOf(root string) string {
	if root != "" && !strings.HasSuffix(root, "/") {
		root += "/"
	}
	return root
}
