package cache

import "errors"

// What a content does with the disk tier: reading and verifying what is there,
// storing what comes, and going on without it where it fails.

// verify reads a block of the disk that this process has not held against its
// checksum, and keeps it in memory.
func (ct *content) verify(i int64, at place) (*block, error) {
	b := ct.c.buffer(ct.blockLen(i))
	err := ct.diskWork(at.disk, b, func() error { return at.disk.read(at.data, i, b.data, at.sum) })
	if err != nil {
		ct.c.releaseUnlocked(b)
		ct.failed(i, at, err)
		return nil, err
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.disk != nil && ct.disk.data == at.data && ct.disk.have.has(i) && ct.disk.sums[i] == at.sum {
		ct.disk.good.set(i)
	}
	if !ct.gone {
		ct.c.add(ct, i, b)
	}
	return b, nil
}

// diskWork does f on an entry's disk, with the block b, which f keeps until it
// returns, however long that is.
func (ct *content) diskWork(e *entry, b *block, f func() error) error {
	ct.c.mu.Lock()
	b.refs++
	ct.c.mu.Unlock()
	return e.health().do(func() error {
		defer ct.c.releaseUnlocked(b)
		return f()
	})
}

// readDisk reads from an entry's file what is known to be right: at once where
// the system has it in memory, else by way of a block, so that a disk that
// does not answer keeps no buffer of the reader's. It returns how much.
func (ct *content) readDisk(at place, p []byte, off int64) (int64, error) {
	if at.disk.d == nil {
		_, err := at.data.ReadAt(p, off)
		return int64(len(p)), err
	}
	if n := readNow(at.data, p, off); n > 0 {
		return int64(n), nil
	}
	n := min(int64(len(p)), BlockSize)
	b := ct.c.buffer(BlockSize)
	defer ct.c.releaseUnlocked(b)
	err := ct.diskWork(at.disk, b, func() error {
		_, err := at.data.ReadAt(b.data[:n], off)
		return err
	})
	if err == nil {
		copy(p, b.data[:n])
	}
	return n, err
}

// verifyAhead holds blocks on disk against their checksums before a program
// asks for them: those of the window, or all where the whole is wanted. Then
// a reader finds them right, and the next open may have the file itself
// ([File.Backing]). c.mu is held.
func (ct *content) verifyAhead() {
	if ct.verifying || ct.refs == 0 {
		return
	}
	if _, ok := ct.nextUnverified(); !ok {
		return
	}
	ct.verifying = true
	ct.fetches++ // its files stay open
	ct.c.running.Add(1)
	go func() {
		defer ct.c.running.Done()
		for ct.verifyNext() {
		}
		ct.settle()
	}()
}

// verifyNext verifies one block; false says that there is none left.
func (ct *content) verifyNext() bool {
	ct.c.mu.Lock()
	i, ok := ct.nextUnverified()
	if !ok || ct.refs == 0 || ct.err != nil {
		ct.verifying = false
		ct.fetches--
		ct.c.mu.Unlock()
		return false
	}
	at := place{disk: ct.disk, data: ct.disk.data, sum: ct.disk.sums[i]}
	ct.c.mu.Unlock()
	if i%maxUnit == 0 {
		willNeed(at.data, i*BlockSize, maxUnit*BlockSize)
	}
	if b, err := ct.verify(i, at); err == nil {
		ct.c.mu.Lock()
		ct.news(i)
		ct.c.release(b)
		ct.c.mu.Unlock()
	}
	return true
}

// nextUnverified is the next block to verify ahead. c.mu is held.
func (ct *content) nextUnverified() (int64, bool) {
	e, p := ct.disk, &ct.plan
	if e == nil || e.d == nil || e.data == nil || !e.d.health.ok() {
		return 0, false
	}
	i := e.have.nextBut(e.good, p.next)
	switch {
	case p.whole && i < 0:
		i = e.have.nextBut(e.good, 0)
	case !p.whole && i >= p.end:
		i = -1
	}
	return i, i >= 0
}

// failed takes a block that could not be read from the disk tier as one that
// is not there. The reader asks again.
func (ct *content) failed(i int64, at place, err error) {
	if isDisk(err) {
		at.disk.health().failed(err)
	}
	if errors.Is(err, errSlowDisk) {
		return // it is there, and is not looked at for a while
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.disk == nil || ct.disk.data != at.data || !ct.disk.have.has(i) {
		return // it was closed meanwhile
	}
	ct.disk.forget(i)
	if !isDisk(err) && !ct.damaged {
		ct.damaged = true
		ct.c.did.damaged.Add(1)
		ct.c.opt.Log.Warn("a file in the disk cache is damaged; what is wrong in it is fetched again", "err", err)
	}
}

// store writes a block to the disk tier, where there is one and room in it.
// must says that it has to succeed: nothing else keeps the block.
func (ct *content) store(i int64, b *block, sum uint32, must bool) error {
	e := ct.entry()
	if e == nil {
		return nil
	}
	to := ct.filesOf(e)
	err := ct.diskWork(e, b, func() error { return e.write(to, i, b.data, sum, must) })
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	switch {
	case err == nil:
		e.wrote(i, sum)
		e.health().worked()
	case ct.gone:
		return err
	case must && e.d == nil:
		return err
	default:
		ct.without(err)
		if must {
			return errElsewhere // what a directory can't take, a temporary file may
		}
	}
	return nil
}

// without goes on with no disk tier for this content, or, where the disk
// fails, for a while. c.mu is held.
func (ct *content) without(err error) {
	if ct.plan.filling = false; isDisk(err) {
		ct.c.opt.Disk.health.failed(err)
	} else {
		ct.noDisk = true
	}
}

// attach opens what the disk tier has of the content.
func (ct *content) attach() {
	d := ct.c.opt.Disk
	if d == nil || !ct.keep || ct.key.Size == 0 {
		return
	}
	ct.files.Lock()
	defer ct.files.Unlock()
	ct.c.mu.Lock()
	old := ct.disk
	skip := ct.gone || (old != nil && old.data != nil)
	ct.c.mu.Unlock()
	if skip {
		return
	}
	if !d.health.ok() {
		return
	}
	e, err := within(d.health, func() (*entry, error) { return d.open(ct.key) }, closeLate)
	if e != nil {
		e.knows(old)
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.disk, ct.noDisk = e, false
	if err != nil {
		ct.without(err)
	}
	if e != nil && ct.validator == "" {
		ct.validator = e.validator
	}
}

// filesOf are the files of e as they are now. c.mu is not held.
func (ct *content) filesOf(e *entry) entryFiles {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	return e.entryFiles
}

// closeLate lets go of an entry that came too late.
func closeLate(e *entry) {
	if e != nil {
		e.close()
	}
}

// entry is the content's place in the disk tier, which is made where it is
// missing; nil where it can have none.
func (ct *content) entry() *entry {
	ct.files.Lock()
	defer ct.files.Unlock()
	ct.c.mu.Lock()
	e, validator := ct.disk, ct.validator
	none := ct.gone || !ct.kept()
	ct.c.mu.Unlock()
	if e != nil && e.data != nil {
		if none && e.d != nil {
			return nil
		}
		return e
	}
	if none {
		return nil
	}
	if validator == ct.key.Version {
		validator = "" // it is in the name
	}
	d := ct.c.opt.Disk
	e, err := within(d.health, func() (*entry, error) { return d.create(ct.key, validator) }, closeLate)
	if err == nil && e.validator != validator {
		e.close()
		err = errOther
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if err != nil {
		ct.without(err)
		return nil
	}
	ct.disk = e
	return e
}

// errOther says that another process has just stored another version.
var errOther = errors.New("it holds another version of this file")
