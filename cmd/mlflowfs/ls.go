package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// lsFlags are the flags of ls.
type lsFlags struct {
	target
	long, recursive, json, mounted bool
}

func (p *process) lsCommand() *cobra.Command {
	var f lsFlags
	c := f.bind(&cobra.Command{
		Use:   "ls [-l] [-R] [--json] (URI | --run-id ID [--path P])",
		Short: "List the artifacts directly under a URI, as mlflow.artifacts.list_artifacts does",
		Long: `Ls lists what lies directly under a URI: runs:/<run_id>/<path>, any form of
models:/… or prompts:/…, or a storage URI such as s3://bucket/dir. A directory's name ends
in a slash. Under a file there is nothing. What no store holds, such as the
registered_model_meta of a download, is not listed.`,
	})
	c.Flags().BoolVarP(&f.long, "long", "l", false, "sizes in bytes, and times where the store tells them")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "what is below its directories, too")
	c.Flags().BoolVar(&f.json, "json", false, "an array of path, is_dir and file_size, as MLflow's FileInfo has them; twice what both a run and its logged model have")
	c.Flags().BoolVar(&f.mounted, "mounted", false, "have a mount find out what lies there now, the one that path would choose, and end with 3 where there is none that does; with --json and without -R")
	return p.command(c, client, f.run)
}

func (f *lsFlags) run(ctx context.Context, o *options, _ []string) error {
	if f.mounted {
		return f.fromMount(ctx, o)
	}
	return f.find(ctx, o, func(s *stores, found resolve.Found) error {
		l := &lister{lsFlags: f, s: s, out: bufio.NewWriter(o.stdout), infos: []resolve.FileInfo{}}
		if err := l.list(ctx, found); err != nil {
			return err
		}
		return l.out.Flush()
	})
}

// fromMount prints what a mount tells. That may be cut short where the kernel is told of
// another listing by that name meanwhile.
func (f *lsFlags) fromMount(ctx context.Context, o *options) error {
	if !f.json || f.recursive || f.runID != "" {
		return usageError{errors.New("--mounted goes with --json and a URI, and not with -R")}
	}
	log, err := o.log()
	if err != nil {
		return err
	}
	point := findMount(ctx, o.scope(), log)
	if point == "" {
		return fmt.Errorf("no mount shows it: %w", iofs.ErrNotExist)
	}
	said, err := ofMount(ctx, point, func() ([]byte, error) { return os.ReadFile(filepath.Join(point, fs.ListPath(f.uri))) })
	if err == nil && !json.Valid(said) {
		err = errors.New("its answer is cut short")
	}
	if err != nil {
		return fmt.Errorf("the mount at %s does not tell: %w: %w", point, err, iofs.ErrNotExist)
	}
	_, err = o.stdout.Write(said)
	return err
}

// lister is the output of ls.
type lister struct {
	*lsFlags
	s     *stores
	out   *bufio.Writer
	infos []resolve.FileInfo
}

func (l *lister) list(ctx context.Context, found resolve.Found) (err error) {
	switch {
	case l.json && !l.recursive:
		l.infos, _, err = l.s.FileInfos(ctx, found)
	case found.Dir != nil:
		err = l.dir(ctx, *found.Dir, found.Prefix, "")
	}
	if err == nil && l.json {
		err = writeJSON(l.out, l.infos)
	}
	return err
}

// dir lists o. Paths begin with mlflow as MLflow gives them, and with rel as
// a person reads them.
func (l *lister) dir(ctx context.Context, o resolve.Dir, mlflow, rel string) error {
	o.Meta = ""
	items, err := l.s.List(ctx, &o)
	if err != nil {
		return err
	}
	for it := range items.All() {
		p, name := path.Join(mlflow, it.Name), path.Join(rel, it.Name)
		if l.json {
			info := resolve.FileInfo{Path: p, IsDir: it.Dir != nil}
			if it.Dir == nil {
				info.Size = &it.Size
			}
			l.infos = append(l.infos, info)
		} else {
			l.line(it, name)
		}
		if it.Dir != nil && l.recursive {
			if err := l.dir(ctx, *it.Dir, p, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lister) line(it resolve.Item, name string) {
	size, mtime := fmt.Sprint(it.Size), "-"
	if it.Dir != nil {
		size, name = "-", name+"/"
	}
	if !it.Mtime.IsZero() {
		mtime = it.Mtime.Local().Format("2006-01-02 15:04:05")
	}
	if l.long {
		fmt.Fprintf(l.out, "%15s  %-19s  ", size, mtime)
	}
	fmt.Fprintln(l.out, name)
}

func (p *process) catCommand() *cobra.Command {
	var t target
	c := t.bind(&cobra.Command{
		Use:   "cat (URI | --run-id ID --path P)",
		Short: "Write one artifact's bytes to standard output",
	})
	return p.command(c, client, func(ctx context.Context, o *options, _ []string) error {
		return t.find(ctx, o, func(_ *stores, found resolve.Found) error { return o.cat(ctx, found) })
	})
}

// catMemory is what cat has for bytes on their way.
const catMemory = 96 << 20

func (o *options) cat(ctx context.Context, found resolve.Found) error {
	switch {
	case found.Dir != nil:
		return errors.New("it is a directory: name a file in it, or use `mlflowfs download`")
	case found.Store == nil:
		_, err := io.WriteString(o.stdout, found.Content)
		return err
	}
	if found.Store.Local() {
		f, err := found.Store.Open(found.Item.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(o.stdout, f)
		return err
	}
	f := o.newCache(cache.Options{Memory: catMemory}, 2*catMemory).Open(found.Key(), found.Item, true)
	defer f.Close()
	_, err := io.CopyBuffer(struct{ io.Writer }{o.stdout}, f.Reader(ctx), make([]byte, 8*cache.BlockSize))
	return err
}
