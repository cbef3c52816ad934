"""Faults that a colleague could make: run.py plants each one, and a test must fail.

`old` stands exactly once in `file`; `new` takes its place. `tests` names those
that should fail, as package:pattern of go test -run, the cheap ones first.
"""

MUTANTS = [
    # cache/
    dict(
        name="sum-not-compared",
        file="cache/entry.go",
        old="if crc32.Checksum(p, castagnoli) != sum {",
        new="if len(p) == 0 {",
        breaks="a bit that turned on the cache's disk is read as a byte of the file",
        tests="./cache:TestFileDamagedWhileClosedIsAMiss",
    ),
    dict(
        name="mark-before-bytes",
        file="cache/entry.go",
        old="""	if _, err := to.data.WriteAt(data, i*BlockSize); err != nil {
		return err
	}
	if to.record == nil {
		return nil
	}
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], sum)
	binary.BigEndian.PutUint32(b[4:], e.check(i, sum))
	_, err := to.record.WriteAt(b[:], headSize+8*i)
	return err
""",
        new="""	if to.record != nil {
		var b [8]byte
		binary.BigEndian.PutUint32(b[:], sum)
		binary.BigEndian.PutUint32(b[4:], e.check(i, sum))
		if _, err := to.record.WriteAt(b[:], headSize+8*i); err != nil {
			return err
		}
	}
	_, err := to.data.WriteAt(data, i*BlockSize)
	return err
""",
        breaks="after a crash, or a write that failed, the log says that the cache is damaged, which it is not",
        tests="./test:TestMarkFollowsItsBytes",
    ),
    dict(
        name="overwritten-file-trusted",
        file="cache/entry.go",
        old="		id.mtime = st.ModTime()\n",
        new="",
        breaks="a cache file that was damaged while nobody had it open is read without a check by the daemon that wrote it",
        tests="./cache:TestFileDamagedWhileClosedIsAMiss",
    ),
    dict(
        name="unverified-file-passed",
        file="cache/entry.go",
        old="return e.n == blocksOf(e.size) && e.good.count() == e.n",
        new="return e.n == blocksOf(e.size)",
        breaks="the kernel reads a file of the cache by itself (passthrough) whose checksums nobody has compared",
        tests="./cache:TestBackingIsGivenWhenVerified",
    ),
    dict(
        name="pinned-evicted",
        file="cache/disk.go",
        old='k.name == "" || pinned[k.name] || d.busy(k.name)',
        new='k.name == "" || pinned[k.path] || d.busy(k.name)',
        breaks="a pinned file leaves the cache when it is full, and is fetched again",
        tests="./cache:TestDiskKeepsItsBound",
    ),
    dict(
        name="room-counted-twice",
        file="cache/entry.go",
        old="if !d.reserve(headSize+8*blocksOf(key.Size), false) {",
        new="if !d.reserve(key.Size, false) {",
        breaks="files leave the cache, or are not taken, when it is half empty: a file's size is counted, and then its blocks",
        tests="./cache:TestRoomIsCountedOnce",
    ),
    dict(
        name="disk-never-used-again",
        file="cache/health.go",
        old="(until == 0 || time.Now().UnixNano() > until)",
        new="until == 0",
        breaks="after one error of the disk the daemon caches nothing on it any more",
        tests="./test:TestBadDiskFailsNoRead",
    ),
    dict(
        name="interrupted-reader-ends-the-wait-of-all",
        file="cache/content.go",
        old="		fl.waiting--\n",
        new="		ct.land(fl.index, nil, context.Cause(ctx))\n",
        breaks="a program that is killed while it waits for a block makes the others that wait for it fail, too",
        tests="./cache:TestOthersWaitOnWhenOneIsInterrupted",
    ),
    dict(
        name="complete-download-not-asked-for",
        file="cache/download.go",
        old="			kept[0] = false // one answer must say that it is this content still\n",
        new="",
        breaks="a download that was interrupted when all pieces were there ends with the old file, though the file was replaced",
        tests="./cache:TestFinishedPiecesAreAskedAfter",
    ),
    # fs/
    dict(
        name="short-reply",
        file="fs/fuse_file.go",
        old="err == io.EOF && int64(n) < want {",
        new="err == io.EOF && int64(n) > want {",
        breaks="a local file of a run that goes on, and is cut under its reader, reads as a shorter one",
        tests="./fs:TestCutFileIsStaleAndNotShort",
    ),
    dict(
        name="pages-of-the-old-content",
        file="fs/artifacts.go",
        old="key.Location, key.Size, key.Version, h.Generation())",
        new="key.Location, key.Size, key.Version, 0)",
        breaks="a file of a run that goes on, replaced by one of the same size, still reads as the old one: the kernel keeps its pages",
        tests="./test:TestRunThatIsNotOverIsSeenAsItIs",
    ),
    dict(
        name="name-leads-to-the-stale-file",
        file="fs/fuse_inode.go",
        old="	if e == syscall.ESTALE {\n		i.outdated()\n	}\n",
        new="",
        breaks="a file that was replaced can't be opened until --metadata-ttl is over: each open is ESTALE",
        tests="./test:TestReplacedInItsStoreIsStale",
    ),
    dict(
        name="memory-looked-at-once",
        file="fs/fuse_kernel.go",
        old="now := time.Now(); now.Sub(looked) > time.Second {",
        new="now := time.Now(); looked.IsZero() {",
        breaks="a machine that runs short of memory after the first read still gets pages that nobody has asked for",
        tests="./fs:TestPushEndsWhenMemoryRunsShort",
    ),
    dict(
        name="alias-split-at-first-at",
        file="fs/models.go",
        old="at := strings.LastIndexByte(name, '@'); at > 0",
        new="at := strings.IndexByte(name, '@'); at > 0",
        breaks="an alias of a model with an @ in its name is not found",
        tests="./fs:TestTreeMeansWhatMLflowMeans",
    ),
    # resolve/
    dict(
        name="key-goes-with-the-second-redirect",
        file="resolve/mlflow/client.go",
        old="if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {",
        new="if last := via[len(via)-1]; req.URL.Host != last.URL.Host || req.URL.Scheme != last.URL.Scheme {",
        breaks="a host that a store redirects to, and that redirects once more, gets the key that a presigned URL came with",
        tests="./resolve/mlflow:TestNoHeaderGoesAlongWithARedirect",
    ),
    dict(
        name="another-range-accepted",
        file="resolve/artifact/http.go",
        old="if err == nil && (first != off || last != off+n-1) {",
        new="if err == nil && last-first != n-1 {",
        breaks="bytes of another part of the file are read where a server answers with another range of the same length",
        tests="./resolve/artifact:TestAnswerOfAnotherRangeIsRefused",
    ),
    dict(
        name="presigned-url-never-renewed",
        file="resolve/artifact/presigned.go",
        old="		s.urls.Drop(path)\n",
        new="",
        breaks="a read fails when an object store refuses a presigned URL before its time is over",
        tests="./test:TestPresignedURLsAreRenewed",
    ),
    dict(
        name="run-wins-over-its-model",
        file="resolve/origin.go",
        old="d.Layers = slices.Concat(below.Dir.Layers, d.Layers)",
        new="d.Layers = slices.Concat(d.Layers, below.Dir.Layers)",
        breaks="where a run's own directory has the name of a logged model, its files are shown and not the model's",
        tests="./resolve:TestModelIsShownInItsRun",
    ),
    dict(
        name="first-page-only",
        file="resolve/resolver.go",
        old='if p.Next == "" || p.Next == token {',
        new='if p.Next == "" || p.Next != token {',
        breaks="an experiment shows its newest 200 runs only",
        tests="./test:TestManyRunsAreAllShown",
    ),
    dict(
        name="model-with-a-slash",
        file="resolve/resolver.go",
        old='if why := artifact.BadName(m.Name); why != "" {',
        new='if why := artifact.BadName(m.Name); why != "" && m.Name == "" {',
        breaks="a logged model that a hostile server calls ../x makes its run's directory fail, or leaves a download's directory",
        tests="./fs:TestHostileNamesAreNotShown",
    ),
]
