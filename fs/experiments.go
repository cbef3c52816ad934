package fs

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// experimentsDir is experiments/: one directory for each experiment.
type experimentsDir struct{ t *tree }

var _ Dir = experimentsDir{}

// experimentNames gives each experiment its name in the directory: its own,
// escaped, with its id behind a dash where it is too long.
func experimentNames(all []meta.Experiment) (names []string, at map[string]int) {
	names, at = make([]string, len(all)), make(map[string]int, len(all))
	for i := range all {
		names[i] = Escape(all[i].Name)
		if len(names[i]) > MaxName {
			names[i] = shorten(names[i], "-"+all[i].ID)
		}
	}
	for i, n := range slices.Backward(names) {
		at[n] = i
	}
	return names, at
}

func (d experimentsDir) node(e *meta.Experiment) *Node {
	return &Node{Dir: experimentDir{d.t, e.ID}, Mtime: e.Created, TTL: d.t.r.TTL(false)}
}

func (d experimentsDir) Lookup(ctx context.Context, file string) (*Node, error) {
	all, err := d.t.r.Experiments(ctx)
	if err != nil {
		return nil, err
	}
	_, at := all.Names(experimentNames)
	if i, ok := at[file]; ok {
		return d.node(&all.Items[i]), nil
	}
	name := Unescape(file)
	if Escape(name) != file || name == "" {
		return nil, notExist(file)
	}
	p, err := d.t.r.Tracking().SearchExperiments(ctx, name, "") // made just now
	if err != nil || len(p.Items) == 0 {
		return nil, cmp.Or(err, notExist(file))
	}
	return d.node(&p.Items[0]), nil
}

func (d experimentsDir) List(ctx context.Context) (Listing, error) {
	all, err := d.t.r.Experiments(ctx)
	if err != nil {
		return nil, err
	}
	names, _ := all.Names(experimentNames)
	out := make(entries, 0, len(names))
	for i, n := range names {
		out = append(out, Entry{n, d.node(&all.Items[i])})
	}
	return &out, nil
}

// experimentDir is experiments/<name>/: one directory for each run, by name, a table of
// them, and what there is of traces.
type experimentDir struct {
	t  *tree
	id string
}

var _ Dir = experimentDir{}

// runNames gives each run its name in the directory.
func runNames(runs []meta.Run) []string {
	return uniqueNames(len(runs), func(i int) (string, string) { return runs[i].Name, runs[i].ID }, 8, "", besideRuns)
}

// uniqueNames gives each of n things, by its name and its id, a file name with an ending:
// its own name, escaped; with the first digits of its id behind a dash where several have
// that name, where it is too long, or where it is taken; the whole id where even that is.
func uniqueNames(n int, of func(int) (name, id string), digits int, ending string, reserved map[string]bool) []string {
	count := map[string]int{}
	for i := range n {
		name, _ := of(i)
		count[name]++
	}
	names := make([]string, n)
	taken := map[string]bool{}
	maps.Copy(taken, reserved)
	for i := range n { // names that are a thing's very own come first
		name, _ := of(i)
		if file := Escape(name) + ending; name != "" && count[name] == 1 && len(file) <= MaxName && !reserved[name] {
			names[i] = file
			taken[file] = true
		}
	}
	for i := range n {
		if names[i] != "" {
			continue
		}
		name, id := of(i)
		file := Escape(id) + ending
		if name != "" {
			file = shorten(Escape(name), "-"+Escape(id[:min(digits, len(id))])+ending)
			if taken[file] {
				file = shorten(Escape(name), "-"+Escape(id)+ending)
			}
		}
		names[i] = file
		taken[file] = true
	}
	return names
}

// namesOfRuns are the runs' names, and what leads to them. Its id leads to a run,
// too: a store on disk makes a run in one step and names it in the next, and
// somebody has listed it in between.
func namesOfRuns(runs []meta.Run) (names []string, at map[string]int) {
	names, at = runNames(runs), make(map[string]int, 2*len(runs))
	for i := range runs {
		at[runs[i].ID] = i
	}
	for i, n := range slices.Backward(names) {
		at[n] = i
	}
	return names, at
}

func (d experimentDir) node(run *meta.Run) *Node {
	id := run.ID
	dir := lazyDir(func(ctx context.Context) (Dir, error) { return d.inside(ctx, id) })
	return &Node{Dir: dir, Mtime: run.Mtime(), TTL: d.t.r.TTL(false)}
}

func (d experimentDir) Lookup(ctx context.Context, name string) (*Node, error) {
	switch name {
	case runsTable:
		return d.table(ctx)
	case tracesName:
		return d.traces(), nil
	case tracesTable:
		return d.traceTable(), nil
	}
	runs, err := d.t.r.ExperimentRuns(ctx, d.id)
	if err != nil {
		return nil, err
	}
	_, at := runs.Names(namesOfRuns)
	if i, ok := at[name]; ok {
		return d.node(&runs.Items[i]), nil
	}
	return nil, notExist(name)
}

func (d experimentDir) List(ctx context.Context) (Listing, error) {
	runs, err := d.t.r.ExperimentRuns(ctx, d.id)
	if err != nil {
		return nil, err
	}
	names, _ := runs.Names(namesOfRuns)
	table := &Node{File: text(""), Later: true}
	return &chain{&runEntries{d, runs.Items, names}, &entries{{runsTable, table}, {tracesName, d.traces()}, {tracesTable, table}}}, nil
}

// besideRuns are the names that stand in an experiment's directory beside its runs.
var besideRuns = map[string]bool{runsTable: true, tracesName: true, tracesTable: true}

// runEntries lists runs by their names. It makes each node when it is wanted.
type runEntries struct {
	d     experimentDir
	runs  []meta.Run
	names []string
}

func (l *runEntries) Next(context.Context) (Entry, error) {
	if len(l.runs) == 0 {
		return Entry{}, io.EOF
	}
	e := Entry{l.names[0], l.d.node(&l.runs[0])}
	l.runs, l.names = l.runs[1:], l.names[1:]
	return e, nil
}

// inside is experiments/<name>/<run>/.
func (d experimentDir) inside(ctx context.Context, id string) (Dir, error) {
	run, err := d.t.r.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	files, err := d.t.metadata(run)
	link := &Node{Link: "../../../runs/" + run.ID, Mtime: run.Mtime(), TTL: d.t.r.TTL(run.Final())}
	return append(fixed{{"artifacts", link}}, files...), err
}
