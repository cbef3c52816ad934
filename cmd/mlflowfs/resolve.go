package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// resolveFlags are the flags of resolve.
type resolveFlags struct {
	target
	json bool
}

func (p *process) resolveCommand() *cobra.Command {
	var f resolveFlags
	c := f.bind(&cobra.Command{
		Use:   "resolve [--json] (URI | --run-id ID [--path P])",
		Short: "Say where a URI leads, how its bytes are reached, and why that way",
	})
	c.Flags().BoolVar(&f.json, "json", false, "as JSON")
	return p.command(c, client, f.run)
}

func (f *resolveFlags) run(ctx context.Context, o *options, _ []string) error {
	return f.find(ctx, o, func(s *stores, found resolve.Found) error {
		r := describe(ctx, s, &f.target, found)
		if f.json {
			if err := writeJSON(o.stdout, r); err != nil {
				return err
			}
		} else if err := r.print(o.stdout); err != nil {
			return err
		}
		return r.err
	})
}

// writeJSON writes x for people and programs.
func writeJSON(w io.Writer, x any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(x)
}

// resolution is what resolve prints.
type resolution struct {
	URI    string       `json:"uri"`
	Kind   string       `json:"kind"` // file or directory
	Size   *int64       `json:"file_size,omitempty"`
	Steps  []step       `json:"steps"`
	Places []placeFound `json:"places"`
	err    error
}

type step struct {
	Kind  string `json:"kind"` // run, model, version
	Name  string `json:"name"`
	Leads string `json:"leads_to"`
}

// placeFound is one of the places whose union it is.
type placeFound struct {
	Location string  `json:"artifact_location"`
	Access   string  `json:"access"` // of the route that is taken; empty where there is none
	Reads    string  `json:"reads"`  // ranges, stream, or unknown
	Routes   []route `json:"ways"`
	Error    string  `json:"error,omitempty"`
}

type route struct {
	Access string `json:"access"`
	What   string `json:"what"`
	Found  string `json:"found"` // taken, not tried, or why it was left
}

func describe(ctx context.Context, s *stores, t *target, found resolve.Found) *resolution {
	r := &resolution{URI: resolve.Shown(t.uri), Kind: "directory", Steps: []step{}, Places: []placeFound{}}
	if t.runID != "" {
		r.URI = "runs:/" + t.runID
	}
	if found.Dir == nil {
		r.Kind, r.Size = "file", &found.Size
	}
	for _, st := range found.Trail {
		r.Steps = append(r.Steps, step(st))
	}
	for _, why := range s.Explain(ctx, found) {
		p := placeFound{Location: why.Where, Reads: "unknown", Routes: []route{}}
		if why.Err != nil {
			p.Error, r.err = why.Err.Error(), why.Err
		}
		for _, v := range why.Routes {
			w := route{string(v.Access), v.Says, "not tried"}
			switch {
			case v.Err != nil:
				w.Found = v.Err.Error()
			case v.Chosen:
				w.Found, p.Access = "taken", string(v.Access)
			}
			if v.Read && v.Chosen {
				p.Reads = map[bool]string{true: "stream", false: "ranges"}[v.Stream]
			}
			p.Routes = append(p.Routes, w)
		}
		r.Places = append(r.Places, p)
	}
	return r
}

var readsInWords = map[string]string{
	"ranges":  "any range of a file can be asked for",
	"stream":  "a file comes whole, in one stream that all readers share",
	"unknown": "not known before a file is read",
}

func (r *resolution) print(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%-10s%s (%s)\n", "uri", r.URI, r.Kind)
	for _, s := range r.Steps {
		fmt.Fprintf(out, "%-10s%s -> %s\n", s.Kind, s.Name, s.Leads)
	}
	for _, p := range r.Places {
		fmt.Fprintf(out, "\n%-10s%s\n", "location", p.Location)
		for _, w := range p.Routes {
			fmt.Fprintf(out, "  %-10s%s: %s\n", w.Access, w.What, w.Found)
		}
		if p.Access != string(artifact.Direct) || p.Reads != "unknown" {
			fmt.Fprintf(out, "  %-10s%s\n", "reads", readsInWords[p.Reads])
		}
	}
	return out.Flush()
}
