"""Faults that a colleague could make: run.py plants each one, and a test must fail.

`old` stands exactly once in `file`; `new` takes its place. `tests` names those
that should fail, as package:pattern of go test -run, the cheap ones first.
"""

MUTANTS = [
    # cache/
    dict(
        name="sum-not-compared",
        file="cache/disk/read.go",
        old="if err == nil && Sum(p) != sum {",
        new="if err == nil && len(p) == 0 {",
        breaks="a bit that turned on the cache's disk is read as a byte of the file",
        tests="./cache:TestFileThatWasWrittenToIsVerifiedAgain",
    ),
    dict(
        name="mark-before-bytes",
        file="cache/disk/writer.go",
        old="""	n, err := writeAll(f.data, data, runs[0].First*BlockSize)
	if err == nil && f.record != nil {
		_, err = f.record.WriteAt(marks, headSize+markSize*runs[0].First)
	}
""",
        new="""	if f.record != nil {
		if _, err := f.record.WriteAt(marks, headSize+markSize*runs[0].First); err != nil {
			return 0, err
		}
	}
	n, err := writeAll(f.data, data, runs[0].First*BlockSize)
""",
        breaks="after a crash, or a write that failed, the log says that the cache is damaged, which it is not",
        tests="./test:TestMarkFollowsItsBytes",
    ),
    dict(
        name="overwritten-file-trusted",
        file="cache/disk/file.go",
        old="if err == nil && !old.left.IsZero() && st.ModTime().Equal(old.left) {",
        new="if err == nil && !old.left.IsZero() {",
        breaks="a cache file that was damaged while nobody had it open is read without a check by the daemon that wrote it",
        tests="./cache:TestFileThatWasWrittenToIsVerifiedAgain",
    ),
    dict(
        name="unverified-file-passed",
        file="cache/disk/read.go",
        old="!f.closed && f.blocks.verified == BlocksOf(f.size)",
        new="!f.closed && f.blocks.readable == BlocksOf(f.size)",
        breaks="the kernel reads a file of the cache by itself (passthrough) whose checksums nobody has compared",
        tests="./cache:TestBackingIsGivenWhenVerified",
    ),
    dict(
        name="replaced-file-met",
        file="cache/store.go",
        old="	return f.Validator() == ct.validator || (f.Validator() == \"\" && ct.key.Version != \"\")\n",
        new="	return true\n",
        breaks="a file that another mount has seen replaced is read as the old version and then as the new one",
        tests="./cache:TestReplacedContentsDoNotMix",
    ),
    dict(
        name="disk-never-used-again",
        file="cache/disk/calls.go",
        old="return r.stuck.Load() == 0 && int64(d.age()) >= r.until.Load()",
        new="return r.stuck.Load() == 0 && r.until.Load() == 0",
        breaks="after one error of the disk the daemon caches nothing on it any more",
        tests="./cache/disk:TestEachKindOfErrorRestsItsOwn",
    ),
    dict(
        name="permit-kept-through-a-backoff",
        file="cache/stream.go",
        old="""		err := s.pourOne()
		s.close()
""",
        new="""		err := s.pourOne()
		s.body.Close()
""",
        breaks="an origin whose answers break off keeps the requests that it has no use for",
        tests="./cache:TestStreamsKeepToTheLimit",
    ),
    dict(
        name="interrupted-reader-ends-the-wait-of-all",
        file="cache/fetch.go",
        old="		p.waiting--\n",
        new="		ct.complete(p.index, nil, context.Cause(ctx))\n",
        breaks="a program that is killed while it waits for a block makes the others that wait for it fail, too",
        tests="./cache:TestOthersWaitOnWhenOneIsInterrupted",
    ),
    dict(
        name="complete-download-not-asked-for",
        file="cache/disk/part.go",
        old="	f.blocks.set(0, missing, 0)\n",
        new="",
        breaks="a download that was interrupted when all of it was there ends with the old file, though the file was replaced",
        tests="./cache:TestCompleteDownloadIsAskedFor",
    ),
    dict(
        name="dead-content-lingers",
        file="cache/lifecycle.go",
        old="		ct.dropBlocks()\n",
        new="",
        breaks="blocks of a file that was replaced stay in memory and count for nobody",
        tests="./cache:TestLifeHasFourStates",
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
        file="resolve/rest/client.go",
        old="if req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme {",
        new="if last := via[len(via)-1]; req.URL.Host != last.URL.Host || req.URL.Scheme != last.URL.Scheme {",
        breaks="a host that a store redirects to, and that redirects once more, gets the key that a presigned URL came with",
        tests="./resolve/rest:TestNoHeaderGoesAlongWithARedirect",
    ),
    dict(
        name="name-leads-inward",
        file="resolve/rest/reach.go",
        old="return g.check(addr, ap.Addr(), port)",
        new="_, _ = ap, port; return nil",
        breaks="a signed URL whose host's name resolves to an inner address, such as a cloud's metadata service, is followed",
        tests="./resolve/rest:TestNameOfAnInnerAddressIsRefusedAtTheConnection",
    ),
    dict(
        name="workspace-passed-over",
        file="resolve/rest/offers.go",
        old="		case !o.Workspaces:\n",
        new="		case !o.Workspaces && o.Downloads:\n",
        breaks="a server of MLflow 2 answers with everybody's runs to who asks for a workspace's",
        tests="./resolve/meta:TestWorkspaceWantsAServerThatHasThem",
    ),
    dict(
        name="region-of-the-sdk",
        file="resolve/rest/aws.go",
        old='return cmp.Or(u.env("AWS_DEFAULT_REGION"), ',
        new='return cmp.Or(u.env("AWS_REGION"), u.env("AWS_DEFAULT_REGION"), ',
        breaks="a tracking server behind AWS is asked with the signature of another region than MLflow's client's",
        tests="./resolve/rest:TestSigV4AgainstBotocore",
    ),
    dict(
        name="default-entry-for-an-empty-one",
        file="resolve/rest/netrc.go",
        old="ok && err == nil\n}",
        new="ok && err == nil && e != (login{})\n}",
        breaks="a host is sent the netrc file's default user and password, though it has an entry",
        tests="./resolve/rest:TestEmptyNetrcEntryIsOfItsHost",
    ),
    dict(
        name="answers-of-all-askers",
        file="cmd/mlflowfs/mount.go",
        old="Scope: asker,",
        new="Scope: asker[:0],",
        breaks="while the server is down, a mount shows what another user or workspace was told",
        tests="./test:TestAskersShareACacheAndNoAnswer",
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
        file="resolve/dir.go",
        old="d.Parts = slices.Concat(below.Dir.Parts, d.Parts)",
        new="d.Parts = slices.Concat(d.Parts, below.Dir.Parts)",
        breaks="where a run's own directory has the name of a logged model, its files are shown and not the model's",
        tests="./resolve:TestModelIsShownInItsRun",
    ),
    dict(
        name="first-page-only",
        file="resolve/index.go",
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
