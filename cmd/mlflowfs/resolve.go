package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

func resolveCommand() *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use:   "resolve [--json] (URI | --run-id ID [--path P])",
		Short: "Say where a URI leads, how its bytes are reached, and why that way",
		RunE: func(*cobra.Command, []string) error {
			return t.find(func(ctx context.Context, s *stores, found resolve.Found, _ *slog.Logger) error {
				r := describe(ctx, s, &t, found)
				if asJSON {
					enc := json.NewEncoder(os.Stdout)
					enc.SetEscapeHTML(false)
					enc.SetIndent("", "  ")
					if err := enc.Encode(r); err != nil {
						return err
					}
				} else if err := r.print(); err != nil {
					return err
				}
				return r.err
			})
		},
	}
	t.bind(c)
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
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

func (r *resolution) print() error {
	out := bufio.NewWriter(os.Stdout)
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
