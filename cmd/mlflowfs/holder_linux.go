package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// holder is the process of a mount that its user has started. It has the session, so that
// programs that use the mount wait where nobody answers, and a child, the daemon, which does
// all the work. When the daemon dies, the holder starts another; for an upgrade it starts
// one beside it, of the program file as it is then.
//
// It lives as long as the mount: it is small, reads no settings, and asks nobody anything.
type holder struct {
	environ []string // the daemons'
	program string   // the path of the program, for upgrades
	ready   *os.File // of who waits for the mount (readyFD), until that is told
	beat    *os.File // see beatFD; for the first daemon
	life    *os.File // of whom the mount serves (lifeFD); nil: signals end it
	systemd beginning
	signals chan os.Signal
	events  chan event
	words   chan string // for systemd

	now     *child
	upgrade upgrade
	ends    int       // signals that the daemon was told
	later   int       // and is to be told when an upgrade has ended
	until   time.Time // when a daemon that starts must serve; zero: none does

	session fusefs.Session
	reaper  *fusefs.Reaper // nil before the mount
	point   string
	lines   *logWriter // of the log
	asJSON  bool       // they are
	level   slog.Level // of those that are said
	crashes []time.Time
}

// Constants of crashes.
const (
	mostCrashes   = 3 // within crashesIn end the mount
	crashesIn     = time.Minute
	deathEvery    = 250 * time.Millisecond // how often is looked whether the daemon is dying
	restartWithin = 70 * time.Second
)

// isHolder tells whether a command line mounts in this process.
func isHolder(argv []string) bool {
	if len(argv) < 2 || argv[1] != "mount" || isHelper(argv[0]) || os.Getenv(holderFD) != "" {
		return false
	}
	return !slices.ContainsFunc(argv[2:], func(a string) bool { return a == "--daemon" || a == "--help" || a == "-h" })
}

// hold is the holder's life. It gives the exit code; not ok: no daemon can be started here,
// as where a machine is emulated, and this process is to be it.
func hold() (code int, ok bool) {
	usual := runtime.GOMAXPROCS(1)
	debug.SetGCPercent(20)
	hidePasswords()
	h := newHolder()
	var err error
	if h.now, err = h.start("/proc/self/exe", toMount); err != nil {
		fmt.Fprintf(os.Stderr, "mlflowfs: one process does it all, and the mount ends with it: another one can't be started: %v\n", err)
		runtime.GOMAXPROCS(usual)
		debug.SetGCPercent(100)
		for _, f := range []*os.File{h.ready, h.beat, h.life} {
			if f == nil {
				continue
			}
			if fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3); err == nil {
				os.Setenv(f.Name(), strconv.Itoa(fd))
			}
			f.Close()
		}
		return 0, false
	}
	h.listen()
	if h.beat != nil {
		h.beat.Close()
		h.beat = nil
		h.environ = slices.DeleteFunc(h.environ, func(v string) bool { return v == "GOGC=off" })
	}
	keepFewRights()
	return h.run(), true
}

func newHolder() *holder {
	h := &holder{ready: lent(readyFD), beat: lent(beatFD), signals: make(chan os.Signal, 8), events: make(chan event, 8), words: make(chan string, 8)}
	h.lines = newLogWriter(os.Stderr, func(int64) {})
	go notifies(h.words)
	h.program, _ = os.Executable()
	h.program = strings.TrimSuffix(h.program, " (deleted)")
	h.life = lent(lifeFD)
	h.systemd.Notify = os.Getenv("NOTIFY_SOCKET") != ""
	h.systemd.Watchdog, _ = systemd.SdWatchdogEnabled(false)
	h.environ = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "NOTIFY_SOCKET" || name == "WATCHDOG_PID" || name == "WATCHDOG_USEC"
	})
	return h
}

// listen has signals come, or the word of whom the mount serves in their place.
func (h *holder) listen() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // who reads standard error may be gone
	signal.Notify(h.signals, syscall.SIGUSR1, syscall.SIGUSR2)
	if h.life != nil {
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
		go (&process{life: h.life}).serve(h.signals)
		return
	}
	signal.Notify(h.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(h.signals, syscall.SIGHUP)
	}
}

// keepFewRights gives up the rights of root that the holder does not use. The bounding set
// stays: the next daemon begins with what the first one had.
func keepFewRights() {
	if os.Geteuid() == 0 {
		limitCapabilities(needed, false)
	}
}

// run is the holder's life while it has a daemon. It gives the exit code.
func (h *holder) run() int {
	tick := time.NewTicker(deathEvery)
	defer tick.Stop()
	for {
		var dead *child
		select {
		case s := <-h.signals:
			h.signalled(s)
		case e := <-h.events:
			dead = h.on(e)
		case <-tick.C:
			dead = h.look()
		}
		if dead != nil {
			if code, done := h.died(dead); done {
				return code
			}
		}
	}
}

func (h *holder) signalled(s os.Signal) {
	switch s {
	case syscall.SIGUSR1: // see options.levels
		if h.now.serving { // else it would die of it
			h.now.process.Signal(s)
		}
	case syscall.SIGUSR2:
		h.beginUpgrade()
	case syscall.SIGQUIT: // it tells where it stands, and ends
		h.ends++
		h.now.process.Signal(s)
	default:
		h.end()
	}
}

// end tells the daemon to end. One that did not after it was told twice is killed.
func (h *holder) end() {
	h.upgrade.interrupt(h)
	switch {
	case h.upgrade.phase != noUpgrade:
		h.later++
	case h.ends >= 2:
		h.now.process.Kill()
	default:
		h.ends++
		h.now.send(message{Kind: doEnd})
	}
}

// on takes an event. It gives the child that has ended.
func (h *holder) on(e event) (dead *child) {
	c := e.of
	switch {
	case e.ended != nil:
		c.how = e.ended.String()
		if code := e.ended.ExitCode(); code >= 0 && c.ended == nil && c.task == toMount && !c.serving {
			c.ended = &code
		}
		c.close()
		if !c.dead {
			c.dead = true
			return c
		}
	case errors.Is(e.err, io.EOF), c != h.now && c != h.upgrade.next:
		e.said.session.Close()
	case e.err != nil:
		c.failed = &message{Error: fmt.Sprintf("it can't be understood: %v", e.err)}
		c.process.Kill()
	default:
		h.heard(c, e.said)
	}
	return nil
}

// heard does what a daemon's message asks for.
func (h *holder) heard(c *child, m message) {
	switch m.Kind {
	case hasMounted:
		h.mounted(c, m)
	case hasTold:
		h.tell(m.Parent)
	case hasWords:
		if c == h.now {
			h.notify(m.Words)
		}
	case hasEnded:
		c.ended = &m.Code
	case hasFailed:
		if !c.serving {
			c.failed = &m
		}
		h.upgrade.heard(h, c, m)
	case hasServing:
		c.serving, h.until = true, time.Time{}
		h.upgrade.heard(h, c, m)
	case hasProven, hasLetGo:
		h.upgrade.heard(h, c, m)
	}
}

func (h *holder) mounted(c *child, m message) {
	if c != h.now || c.task != toMount || c.serving {
		m.session.Close()
		return
	}
	c.serving = true
	h.session, h.point, h.asJSON, h.level = m.session, m.Point, m.AsJSON, m.Level
	if m.Log != "" {
		h.lines = newLogWriter(appended(m.Log), func(int64) {})
	}
	var err error
	if h.reaper, err = fusefs.NewReaper(h.point); err != nil {
		h.log().Info("what a kill leaves of the mount is cleared by the next one", "err", err)
	}
	debug.FreeOSMemory()
}

// tell tells who waits for the mount how it went. Only now the holder leaves its session: see
// [process.tellParent].
func (h *holder) tell(said []byte) {
	if h.ready == nil {
		return
	}
	unix.Setsid()
	h.ready.Write(said)
	h.ready.Close()
	h.ready = nil
}

// look looks for a daemon that is dying, or late. One of whose threads the kernel keeps does
// not end before another one answers what that waits for.
func (h *holder) look() (dead *child) {
	for _, c := range []*child{h.now, h.upgrade.next} {
		if c == nil || c.dead || !fusefs.Dying(c.process.Pid) {
			continue
		}
		if c.dying++; c.dying > 1 {
			c.dead, c.how = true, "killed"
			return c
		}
	}
	if !h.until.IsZero() && time.Now().After(h.until) {
		h.until = time.Time{}
		h.now.process.Kill()
	}
	h.upgrade.late(h)
	return nil
}

// died does what is to be done when a daemon has ended. It gives an exit code where that is
// the end.
func (h *holder) died(c *child) (code int, done bool) {
	if c != h.now {
		return h.upgrade.died(h, c)
	}
	if h.upgrade.goesOn(h) {
		return 0, false
	}
	switch {
	case c.ended != nil && c.failed == nil && (c.serving || c.task == toMount):
		h.session.Close()
		return *c.ended, true
	case h.point == "":
		fmt.Fprintf(os.Stderr, "mlflowfs: the daemon ended before the mount answered: %s\n", c.how)
		return exitFailed, true
	case h.session.Ended():
		h.log().Info("the daemon has died, and the mount was taken away", "mountpoint", h.point)
		return 0, h.clear()
	case h.ends+h.later > 0:
		h.log().Error("the daemon has died before it had unmounted; the mount is taken away", "mountpoint", h.point, "how", c.how)
		return exitFailed, h.clear()
	case c.failed != nil && c.failed.Refuse:
		return h.anew(c)
	}
	return h.again(c)
}

// again starts another daemon, which takes up the session of one that has died.
func (h *holder) again(c *child) (code int, done bool) {
	now := time.Now()
	h.crashes = append(slices.DeleteFunc(h.crashes, func(t time.Time) bool { return now.Sub(t) > crashesIn }), now)
	how := c.why()
	if len(h.crashes) >= mostCrashes {
		h.log().Error(fmt.Sprintf("the daemon has died %d times within a minute: the mount is taken away; start it again, and report what its log says", len(h.crashes)), "mountpoint", h.point, "how", how)
		return exitFailed, h.clear()
	}
	h.log().Warn("the daemon has died; another one goes on with the mount", "mountpoint", h.point, "how", how)
	return h.replace(toTakeUp)
}

// anew has a daemon mount anew, since the session can't be taken up.
func (h *holder) anew(c *child) (code int, done bool) {
	if h.reaper != nil && !h.reaper.Shown() {
		h.log().Warn("the mount can't be taken up; it was detached, and ends", "mountpoint", h.point, "why", c.failed.Error)
		return exitFailed, h.clear()
	}
	h.log().Warn("a clean restart: the mount can't be taken up, and is made anew; programs that use it get errors", "mountpoint", h.point, "why", c.failed.Error)
	h.takeAway()
	return h.replace(toMount)
}

func (h *holder) replace(to task) (code int, done bool) {
	if h.systemd.Watchdog > 0 {
		h.notify(systemd.SdNotifyWatchdog)
	}
	next, err := h.start("/proc/self/exe", to)
	if err != nil {
		h.log().Error("no other daemon can be started: the mount is taken away", "mountpoint", h.point, "err", err)
		return exitFailed, h.clear()
	}
	if h.now = next; to == toTakeUp {
		h.until = time.Now().Add(restartWithin)
	}
	return 0, false
}

// clear takes the mount away, and its directory where that was made for it.
func (h *holder) clear() (done bool) {
	h.takeAway()
	if h.now.process.Kill(); os.Getenv(ownPoint) != "" {
		os.Remove(h.point)
	}
	return true
}

func (h *holder) takeAway() {
	if err := h.reaper.Clear(h.session); err != nil {
		h.log().Warn("the mount can't be taken away", "mountpoint", h.point, "err", err)
	}
	h.session, h.reaper = fusefs.Session{}, nil
}

// notifies tells systemd what there is to tell. Nobody waits for that.
func notifies(words <-chan string) {
	for w := range words {
		systemd.SdNotify(false, w)
	}
}

func (h *holder) notify(words string) {
	select {
	case h.words <- words:
	default: // it does not listen
	}
}

// log is where the daemon's log goes, too. Nobody waits for who reads it.
func (h *holder) log() *slog.Logger {
	opt := &slog.HandlerOptions{Level: h.level}
	if h.asJSON {
		return slog.New(slog.NewJSONHandler(h.lines, opt))
	}
	return slog.New(slog.NewTextHandler(h.lines, opt))
}
