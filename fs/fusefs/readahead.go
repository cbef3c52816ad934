package fusefs

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// readAheadKiB is what the kernel reads ahead as root. More makes a large read
// at random bring several times itself, and no load faster that was measured:
// what a reader in order wants next is in the cache by then.
const readAheadKiB = 256

// readAhead raises how much the kernel reads ahead in the mount at point, in
// KiB. It starts at 128 whatever the daemon asks for, and only root may.
func readAhead(point string, kib int, log *slog.Logger) {
	if os.Geteuid() != 0 {
		log.Info("the kernel's read-ahead stays at 128 KiB: only root may raise it")
		return
	}
	var st syscall.Stat_t
	if err := syscall.Stat(point, &st); err != nil {
		return
	}
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	if err := os.WriteFile(name, []byte(strconv.Itoa(kib)), 0); err != nil {
		log.Info("the kernel's read-ahead can't be raised", "err", err)
	}
}
