package fusefs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/mlflowfs/mlflowfs/fs/storetest"
)

// TestOwnMountsAreThisUsers fails when a program is led to a mount that another user has
// made, who calls it a mlflowfs's and shows there what he likes.
func TestOwnMountsAreThisUsers(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	own, _ := mounted(t, treeOf(t, s, 0), MountOptions{})
	other := t.TempDir()
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := syscall.Mount(fsName, other, "fuse."+fsName, 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=65534,group_id=65534,allow_other", dev.Fd())); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(other, syscall.MNT_DETACH)
	all, aerr := Mounts()
	mine, oerr := OwnMounts()
	if err := errors.Join(aerr, oerr); err != nil || !slices.Contains(all, other) || !slices.Contains(all, own) {
		t.Fatalf("the mounts are %v, %v", all, err)
	}
	if slices.Contains(mine, other) || !slices.Contains(mine, own) {
		t.Errorf("of %s and another user's %s, this user's are %v", own, other, mine)
	}
}
