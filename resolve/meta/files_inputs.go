package meta

import (
	"path"
)

// metaEdge is the meta.yaml of a run's input or output (FileStore._FileStoreInput,
// _FileStoreOutput).
type metaEdge struct {
	SourceType      string            `yaml:"source_type"` // DATASET or MODEL, of an input
	SourceID        string            `yaml:"source_id"`
	DestinationType string            `yaml:"destination_type"` // MODEL_OUTPUT, of an output
	DestinationID   string            `yaml:"destination_id"`
	Step            int64             `yaml:"step"`
	Tags            map[string]string `yaml:"tags"`
}

// edges reads a run's inputs or outputs.
func (v fileView) edges(r *fileRun, kind string) (out []metaEdge) {
	dir := path.Join(r.dir, kind)
	ids, err := v.children(dir, anyDir)
	v.passed.unless(dir, err, false)
	for _, id := range ids {
		var e metaEdge
		part := path.Join(dir, id)
		if !v.passed.unless(part, v.readYAML(path.Join(part, metaFile), &e), false) {
			out = append(out, e)
		}
	}
	return out
}

// inputs adds a run's datasets and the models that it read.
func (v fileView) inputs(r *fileRun, in *jsonInputs) {
	for _, e := range v.edges(r, "inputs") {
		switch e.SourceType {
		case "MODEL":
			in.Models = append(in.Models, jsonModelInput{e.SourceID})
		case "DATASET":
			part := path.Join(path.Dir(r.dir), "datasets", e.SourceID)
			d := jsonDatasetInput{Tags: sortedPairs(e.Tags)}
			if valid(e.SourceID) && !v.passed.unless(part, v.readYAML(path.Join(part, metaFile), &d.Dataset), false) {
				in.Datasets = append(in.Datasets, d)
			}
		}
	}
}

func (v fileView) outputs(r *fileRun) (out []jsonModelOutput) {
	for _, e := range v.edges(r, "outputs") {
		if e.DestinationType == "MODEL_OUTPUT" {
			out = append(out, jsonModelOutput{ModelID: e.DestinationID, Step: e.Step})
		}
	}
	return out
}
