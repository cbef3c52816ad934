package fusefs

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// MountOptions say how a tree is shown.
type MountOptions struct {
	AllowOther bool // to every user of the machine, not only to this one
	Debug      bool // log each request of the kernel
	MaxRead    int  // bytes that the kernel asks for at a time, at most (1 MiB)
	MaxReads   int  // reads of the kernel's that wait at once, beyond which it keeps others to itself (64)
	NoPassing  bool // have no file of the cache read by the kernel itself
	NoPushing  bool // give the kernel no pages before it asks
	MaxNames   int  // names that the kernel knows, beyond which it is asked to forget what is not in use (0: none)

	// Stuck is how long a request of the kernel may wait until the log is told
	// where the daemon stands (2 minutes).
	Stuck time.Duration

	// Answered is told of each request of the kernel, and Failed of each that a
	// program gets an errno for. Neither may wait.
	Answered func(op string, took time.Duration)
	Failed   func(op, errno string)

	Log *slog.Logger

	// Scope is what a name and a number mean the same for: another daemon takes the session up
	// only with the same.
	Scope string
}

// Mounted is a tree that the kernel shows.
type Mounted struct {
	a      *adapter
	server server
	point  string
	once   sync.Once // stops what goes on beside the requests
}

const fsName = "mlflowfs"

// negativeTTL is how long the kernel may believe that a name is not there.
const negativeTTL = time.Second

// Mount shows the tree below root at the directory point, which must pass
// [CheckMountpoint]. It returns when the mount answers.
func Mount(point string, root *fs.Node, opt MountOptions) (*Mounted, error) {
	file, err := sessionfile.Create(scopeOf(opt))
	if err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	a := newAdapter(point, root, opt, file)
	server, err := serve(point, a, opt.fuse())
	if err != nil {
		file.Close()
		return nil, explainMount(point, opt, err)
	}
	readAhead(point, readAheadKiB, opt.Log)
	return a.start(server, point), nil
}

// start begins what goes on beside the requests.
func (a *adapter) start(s server, point string) *Mounted {
	go a.pusher.work()
	go a.names.work(a.session)
	go a.links.work(a)
	go a.watchdog.watch()
	return &Mounted{a: a, server: s, point: point}
}

func (opt MountOptions) withDefaults() MountOptions {
	if opt.MaxRead <= 0 {
		opt.MaxRead = 1 << 20
	}
	if opt.MaxReads <= 0 {
		opt.MaxReads = 64
	}
	if opt.Stuck <= 0 {
		opt.Stuck = 2 * time.Minute
	}
	return opt
}

// fuse are the options as go-fuse has them.
func (opt MountOptions) fuse() *fuse.MountOptions {
	o := &fuse.MountOptions{
		AllowOther:    opt.AllowOther,
		FsName:        fsName,
		Name:          fsName,
		MaxWrite:      opt.MaxRead, // of a read, too
		MaxBackground: opt.MaxReads,
		Debug:         opt.Debug,
		// A file that grows is read past the page cache, and may be mapped all the same.
		// Who reads so may have many reads on their way (io_uring, AIO).
		ExtraCapabilities: fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_ASYNC_DIO | fuse.CAP_EXPORT_SUPPORT,
		// What is read is in memory, so that splicing saves nothing; and go-fuse's
		// splice panics, on a goroutine of its own, where no descriptor is left.
		DisableSplice: true,
		Options:       []string{"default_permissions"},
		Logger:        log.New(slogWriter{opt.Log}, "", 0),
		PanicHandler: func(r any) fuse.Status {
			fs.LogPanic(opt.Log, "a request", r)
			return fuse.EIO
		},
	}
	if MayMount() {
		o.DirectMountStrict = true // needs no fusermount3
		o.DirectMountFlags = directly
	} else {
		o.Options = append(o.Options, "ro")
	}
	return o
}

// newAdapter makes what shows the tree below root. The root is known to the kernel from the
// beginning, and is not forgotten.
func newAdapter(point string, root *fs.Node, opt MountOptions, file *sessionfile.File) *adapter {
	a := &adapter{
		log: opt.Log, uid: uint32(os.Getuid()), gid: uint32(os.Getgid()), mounted: file.Mounted(),
		answered: opt.Answered, failed: opt.Failed,
		file:     file,
		handles:  newHandles(&file.Handles),
		session:  &session{},
		pusher:   newPagePusher(opt.Log, opt.NoPushing),
		names:    newNames(opt.Log, opt.MaxNames, &file.Names),
		links:    newLinkWatcher(point),
		watchdog: newWatchdog(opt.Log, opt.Stuck),
	}
	a.passing = &passthrough{log: opt.Log, off: opt.NoPassing, session: a.session}
	if a.answered == nil {
		a.answered = func(string, time.Duration) {}
	}
	if a.failed == nil {
		a.failed = func(string, string) {}
	}
	a.root = &inode{a: a, number: fuse.FUSE_ROOT_ID, dir: true, node: root}
	a.root.pins.Add(1)
	a.names.live[a.root.number] = a.root
	return a
}

// slogWriter sends go-fuse's own lines to the log.
type slogWriter struct{ log *slog.Logger }

func (w slogWriter) Write(p []byte) (int, error) {
	w.log.Debug(strings.TrimSpace(string(p)))
	return len(p), nil
}

// explainMount says what to do about a mount that failed.
func explainMount(point string, opt MountOptions, err error) error {
	if _, serr := os.Stat("/dev/fuse"); serr != nil {
		return errors.New("the kernel offers no FUSE here (/dev/fuse is missing): load the module with `modprobe fuse`, or give the container --device /dev/fuse")
	}
	if os.Geteuid() == 0 || MayMount() {
		return fmt.Errorf("%s can't be mounted: %w (a container needs the right to mount: --cap-add SYS_ADMIN)", point, err)
	}
	if _, lerr := exec.LookPath("fusermount3"); lerr != nil {
		return errors.New("to mount as a user other than root, install fusermount3 (Debian: apt install fuse3), or run what needs the mount by `mlflowfs exec`, which can do without")
	}
	if f, ferr := os.OpenFile("/dev/fuse", os.O_RDWR, 0); errors.Is(ferr, os.ErrPermission) {
		return errors.New("this user may not open /dev/fuse: let root run `chmod 666 /dev/fuse`, as udev does, or add the user to the group that may")
	} else if ferr == nil {
		f.Close()
	}
	hint := ""
	if opt.AllowOther {
		hint = " (--allow-other needs the line user_allow_other in /etc/fuse.conf)"
	}
	return fmt.Errorf("%s can't be mounted: %s%s", point, strings.TrimSpace(err.Error()), hint)
}

// Wait returns when the tree is shown no more.
func (m *Mounted) Wait() {
	m.server.Wait()
	m.once.Do(m.stop)
}

func (m *Mounted) stop() {
	close(m.a.watchdog.stop)
	close(m.a.names.stopped)
	close(m.a.links.stopped)
	m.a.pusher.stop()
}

// Unmount takes the mount away. Where it is in use, it is detached: it is gone
// from its place at once, and Wait returns when the last user lets go; busy
// is then true.
func (m *Mounted) Unmount() (busy bool, err error) {
	m.once.Do(m.stop)
	for try := range 5 {
		if err = m.server.Unmount(); err == nil {
			return false, nil
		}
		time.Sleep(time.Duration(20<<try) * time.Millisecond)
	}
	return true, Unmount(m.point, true)
}

// UnmountUnused takes the mount away, unless somebody uses it.
func (m *Mounted) UnmountUnused() error { return m.server.Unmount() }

// Unmount takes a mount of mlflowfs away, with the right to do so or with
// fusermount3. lazy detaches it while it is in use.
func Unmount(point string, lazy bool) error {
	if MayMount() {
		flags := 0
		if lazy {
			flags = detached
		}
		return syscall.Unmount(point, flags)
	}
	out, err := unmountUnprivileged(point, lazy).CombinedOutput()
	if err != nil && len(out) > 0 {
		return errors.New(strings.TrimSpace(string(out)))
	}
	return err
}

// FindMount tells whether point is a mount, and whether it is one of
// mlflowfs's; it does not touch what is mounted there, which may be dead. The
// path is absolute, with no symbolic link in it.
//
// An automount (autofs in the kernel) is none: it waits for one.
func FindMount(point string) (mounted, ours bool, err error) {
	top, _, err := mountAt(point)
	if top == nil || err != nil {
		return false, false, err
	}
	return true, top.FSType == "fuse."+fsName, nil
}

// mountAt gives the topmost mount at point, or nil, and whether an automount
// waits for one there.
func mountAt(point string) (top *mountinfo.Info, awaited bool, err error) {
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != point, false })
	for _, i := range infos {
		if i.FSType == "autofs" {
			awaited = true
		} else {
			top = i
		}
	}
	return top, awaited, err
}

// Mounts gives the mount points of all mounts of mlflowfs that this process sees.
func Mounts() ([]string, error) { return mounts(func(*mountinfo.Info) bool { return true }) }

// OwnMounts gives those that this process's user has made, by the kernel's word: what a
// mount says of itself, and the name of its kind, are those of whoever made it.
func OwnMounts() ([]string, error) {
	user := fmt.Sprint("user_id=", os.Geteuid())
	return mounts(func(i *mountinfo.Info) bool { return slices.Contains(strings.Split(i.VFSOptions, ","), user) })
}

func mounts(which func(*mountinfo.Info) bool) (points []string, err error) {
	infos, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("fuse." + fsName))
	for _, i := range infos {
		if which(i) {
			points = append(points, i.Mountpoint)
		}
	}
	return points, err
}

// ResolvePoint makes a mount point's path absolute and free of symbolic links,
// without touching the point itself.
func ResolvePoint(point string) (string, error) {
	abs, err := filepath.Abs(point)
	if err != nil {
		return "", err
	}
	if st, err := os.Lstat(abs); err == nil && st.Mode()&os.ModeSymlink != 0 {
		return filepath.EvalSymlinks(abs)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return abs, nil // the stat that follows tells what is missing
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// dead tells whether the daemon of a mount is gone. A stat may be answered
// from the kernel's memory, a statfs never is. A daemon that does not answer
// is not dead.
func dead(point string) bool {
	answer := make(chan error, 1)
	go func() {
		var st syscall.Statfs_t
		answer <- syscall.Statfs(point, &st)
	}()
	select {
	case err := <-answer:
		return errors.Is(err, syscall.ENOTCONN)
	case <-time.After(2 * time.Second):
		return false
	}
}

// CheckMountpoint says in a plain sentence why point can't be mounted on. A
// dead mount that a killed mlflowfs left there is cleared.
func CheckMountpoint(point string, log *slog.Logger) error {
	top, awaited, err := mountAt(point)
	if err != nil {
		return err
	}
	if top != nil {
		if top.FSType != "fuse."+fsName || !dead(point) {
			return fmt.Errorf("%s is mounted already: unmount it first (`mlflowfs unmount %s`), or choose another directory", point, point)
		}
		if err := Unmount(point, true); err != nil {
			return fmt.Errorf("%s holds the dead mount of an mlflowfs that was killed, which can't be cleared: %w", point, err)
		}
		log.Info("cleared the dead mount of an mlflowfs that was killed", "mountpoint", point)
		return CheckMountpoint(point, log)
	}
	st, err := os.Stat(point)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s does not exist: make it first (`mkdir -p %s`)", point, point)
	case err != nil:
		return fmt.Errorf("%s can't be used as a mount point: %w", point, err)
	case !st.IsDir():
		return fmt.Errorf("%s is a file: a mount point must be an empty directory", point)
	}
	if awaited {
		return nil // to look into it would wait for the mount that is about to be made
	}
	entries, err := os.ReadDir(point)
	if err != nil {
		return fmt.Errorf("%s can't be used as a mount point: %w", point, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: choose an empty directory, so that nothing is hidden under the mount", point)
	}
	return nil
}
