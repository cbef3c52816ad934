package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
)

// runIn runs a command line as a process would that has these variables and no others.
func runIn(ctx context.Context, environ []string, argv ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	p := &process{environ: environ, stdout: &out, stderr: &errs}
	code = p.execute(ctx, append([]string{"mlflowfs"}, argv...))
	return out.String(), errs.String(), code
}

// commands are the commands that do something, by their names.
func commands() map[string]*cobra.Command {
	all := map[string]*cobra.Command{}
	var below func(c *cobra.Command)
	below = func(c *cobra.Command) {
		for _, c := range c.Commands() {
			all[strings.TrimPrefix(c.CommandPath(), "mlflowfs ")] = c
			below(c)
		}
	}
	below((&process{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}).rootCommand())
	return all
}

// TestCommandsTakeTheirSettings fails when a command lacks a flag of a setting that is
// said to be taken by it, has one of another, or shows another help than the table; or when
// the words of a setting are not completed.
func TestCommandsTakeTheirSettings(t *testing.T) {
	t.Parallel()
	by := map[string]scope{
		"mount": mounting, "exec": mounting, "doctor": mounting, "config show": mounting, "warm": caching, "evict": caching, "pin": caching, "unpin": caching, "path": caching, "download": caching,
		"ls": client, "cat": client, "resolve": client, "watch": client,
		"config": nothing, "unmount": nothing, "upgrade": nothing, "list": nothing, "status": nothing, "demo": nothing, "__pages": nothing,
	}
	for name, c := range commands() {
		takes, ok := by[name]
		if !ok {
			t.Errorf("%s: a command that this test does not know", name)
		}
		delete(by, name)
		for _, s := range settings {
			f := c.Flags().Lookup(s.name)
			switch {
			case (f != nil) != (s.takes <= takes):
				t.Errorf("%s takes --%s: %v", name, s.name, f != nil)
			case f != nil && (f.Usage != s.help+" [$"+strings.Join(s.variables(), ", $")+"]"):
				t.Errorf("%s --%s: %s", name, s.name, f.Usage)
			}
		}
	}
	if len(by) > 0 {
		t.Errorf("no command: %v", by)
	}
	for _, s := range settings {
		out, _, _ := runIn(t.Context(), nil, "__complete", "mount", "--"+s.name, "")
		if want := strings.Join(s.words, "\n") + "\n"; s.words != nil && !strings.HasPrefix(out, want) {
			t.Errorf("--%s is completed by %q, and not %q", s.name, out, want)
		}
	}
}

// TestInterruptEndsCommands fails when the first signal does not end a command's context,
// when the second does not end what still waits for others, or when a command that has not
// ended a moment later goes on.
func TestInterruptEndsCommands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal)
		var exited atomic.Int32
		exited.Store(-1)
		var p process
		ctx := p.endBy(signals, func(code int) { exited.Store(int32(code)) })
		if ctx.Err() != nil {
			t.Fatal("it has ended")
		}
		signals <- syscall.SIGTERM
		<-ctx.Done()
		time.Sleep(time.Hour)
		select {
		case <-p.abort:
			t.Error("one signal is taken for two")
		default:
		}
		signals <- syscall.SIGINT
		<-p.abort
		if exited.Load() != -1 {
			t.Error("what waits has no time to end")
		}
		time.Sleep(lastMoment + 1)
		synctest.Wait()
		if code := exited.Load(); code != exitFailed {
			t.Errorf("exit %d", code)
		}
	})
}

// TestCommandsEndWithTheirContext fails when a command goes on though the program was
// told to end: each looks at its context, and says with its exit code how it ended.
func TestCommandsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("some bytes"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"HOME=" + t.TempDir()}
	if out, errs, code := runIn(t.Context(), env, "ls", "file://"+dir); code != 0 || out != "0\n1\n2\n" || errs != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	server := "--tracking-uri=http://192.0.2.1" // nobody is there
	for _, argv := range [][]string{
		{"ls", server, "runs:/0123456789abcdef0123456789abcdef"}, {"cat", server, "models:/m/1/f"}, {"download", server, "models:/m/1"},
		{"resolve", server, "models:/m/1"}, {"warm", server, "models:/m/1"}, {"evict", server, "models:/m/1"}, {"pin", server, "models:/m/1"},
		{"mount", server, "--cache-dir=none", t.TempDir()},
	} {
		if _, errs, code := runIn(ended, env, argv...); code != exitFailed || errs == "" {
			t.Errorf("%s: %d %q", argv[0], code, errs)
		}
	}
	if _, errs, code := runIn(ended, env, "watch", server, "models:/m@a"); code != 0 {
		t.Errorf("watch: %d %q", code, errs)
	}
}

// TestLogIsCompleteWhenACommandEnds fails when a command ends without saying how many
// lines of its log were left out.
func TestLogIsCompleteWhenACommandEnds(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	p := &process{stderr: &errs}
	c := p.command(&cobra.Command{Use: "try"}, client, func(_ context.Context, o *options, _ []string) error {
		log, err := o.log()
		for range 3 {
			log.Error("it failed")
		}
		return err
	})
	c.SetArgs([]string{})
	if err := c.ExecuteContext(t.Context()); err != nil || !strings.Contains(errs.String(), "lines=2") {
		t.Errorf("%v: %s", err, errs.String())
	}
}
