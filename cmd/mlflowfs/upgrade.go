package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

func (p *process) upgradeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "upgrade [MOUNTPOINT…]",
		Short: "Have mounts go on with the program that is installed now",
		Long: `Upgrade starts, for each mount, a daemon of the program file as it is now, and has it go
on with the mount: programs that use the mount wait for a moment, and see no error. The
daemon before goes on where the next one can't. Without MOUNTPOINT it is done to all mounts
of this user.`,
	}
	return p.command(c, nothing, func(ctx context.Context, o *options, args []string) error {
		points, err := fusefs.OwnMounts()
		if err != nil {
			return err
		}
		if len(args) > 0 {
			if points, err = ownPoints(args, points); err != nil {
				return err
			}
		}
		var errs []error
		for _, point := range points {
			version, err := upgradeMount(ctx, point)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s is not upgraded: %w", point, err))
				continue
			}
			fmt.Fprintf(o.stderr, "mlflowfs: %s is answered by %s\n", point, version)
		}
		return errors.Join(errs...)
	})
}

// ownPoints are the mount points that args name, each of which must be among own.
func ownPoints(args, own []string) (points []string, err error) {
	for _, arg := range args {
		point, err := fusefs.ResolvePoint(arg)
		if err != nil {
			return nil, err
		}
		if mounted, ours, err := fusefs.FindMount(point); err != nil || !mounted || !ours {
			return nil, errors.Join(err, fmt.Errorf("%s is no mount of mlflowfs (`mlflowfs list` shows them)", point))
		}
		if !slices.Contains(own, point) {
			return nil, fmt.Errorf("%s is another user's mount: %w", point, os.ErrPermission)
		}
		points = append(points, point)
	}
	return points, nil
}

// upgradeWithin is how long an upgrade may take: as long as the holder gives it, and a moment.
const upgradeWithin = 90 * time.Second

// upgradeMount upgrades the mount at point, and gives the version that answers it then.
func upgradeMount(ctx context.Context, point string) (version string, err error) {
	before, err := askStatus(ctx, point)
	if err != nil {
		return "", err
	}
	if !isHolderOf(before.PID, before.Daemon) {
		return "", fmt.Errorf("process %d can't hand it over: unmount it, and mount it again", before.PID)
	}
	if err := syscall.Kill(before.PID, syscall.SIGUSR2); err != nil {
		return "", fmt.Errorf("process %d can't be told: %w", before.PID, err)
	}
	for end := time.Now().Add(upgradeWithin); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return "", errors.New("interrupted: it may be upgraded all the same")
		case <-time.After(200 * time.Millisecond):
		}
		now, err := askStatus(ctx, point)
		if err != nil || now.Session.LastUpgrade == nil || before.Session.LastUpgrade != nil && now.Session.LastUpgrade.Time.Equal(before.Session.LastUpgrade.Time) {
			continue // it is on its way
		}
		if why := now.Session.LastUpgrade.Error; why != "" {
			return "", errors.New(why)
		}
		return now.Version, nil
	}
	return "", fmt.Errorf("nothing was heard of it for %v", upgradeWithin)
}

// isHolderOf tells whether a process, which a mount names, has started another one, and runs
// as this user: a signal that it does not wait for would end it.
func isHolderOf(pid, daemon int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", daemon))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b[max(bytes.LastIndexByte(b, ')'), 0):]), " ")
	f := strings.Fields(rest)
	return len(f) > 1 && f[1] == strconv.Itoa(pid)
}
