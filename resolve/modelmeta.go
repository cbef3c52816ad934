package resolve

import (
	"regexp"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// MetaName is the file that the MLflow client writes beside an MLmodel when it
// downloads a model (mlflow.store.artifact.models_artifact_repo).
const MetaName = "registered_model_meta"

// ModelFile is what makes a directory a model (mlflow.models.model).
const ModelFile = "MLmodel"

// metaOf is the content of registered_model_meta for a version, byte for byte
// what the client's write_yaml makes of it; both empty is a logged model.
func metaOf(name, version string) string {
	doc := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		plain("model_name"), scalar(name), plain("model_version"), scalar(version),
	}}
	b, err := yaml.Dump(doc, yaml.WithLineWidth(80))
	if err != nil {
		// A name that no YAML can hold; the client fails on it, too.
		return ""
	}
	return string(b)
}

func plain(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func scalar(s string) *yaml.Node {
	if s == "" {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	}
	n := plain(s) // the emitter quotes what can't be plain
	if yaml11.MatchString(s) || strings.Contains(s, "\n") {
		n.Style = yaml.SingleQuotedStyle
	}
	return n
}

// yaml11 matches what PyYAML's resolver, which knows YAML 1.1, takes for
// something else than a string, so that its emitter puts quotes around it
// (yaml/resolver.py).
var yaml11 = regexp.MustCompile(`^(?:` +
	`yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF` +
	`|[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?` +
	`|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)` +
	`|[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+` +
	`|<<|~|null|Null|NULL|=` +
	`|[0-9]{4}-[0-9]{2}-[0-9]{2}` +
	`|[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?` +
	`)$`)
