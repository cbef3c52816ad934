package meta

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// message is a field of bytes of a message.
func message(num protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), bytes.Join(parts, nil))
}

func fixed64(num protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(nil, num, protowire.Fixed64Type), v)
}

// aSpan is a span of an archive.
func aSpan(id byte, start uint64, more ...[]byte) []byte {
	return message(2, message(1, []byte{0xab}), message(2, []byte{id}), fixed64(7, start), bytes.Join(more, nil))
}

// anArchive is a traces.pb of spans.
func anArchive(spans ...[]byte) []byte {
	return message(1, message(1), message(2, message(1), bytes.Join(spans, nil)))
}

func anAttribute(key string, value ...[]byte) []byte {
	return message(9, message(1, []byte(key)), message(2, value...))
}

func readArchive(b []byte) (string, error) {
	r, err := ArchivedSpans(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return "", err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	return string(text), err
}

// TestArchivedSpansAreInOrder fails when the spans of an archive don't stand in MLflow's
// order, the root first; when a span that has no request id is not given the trace's own;
// or when a child's children stand in another order than they began.
func TestArchivedSpansAreInOrder(t *testing.T) {
	t.Parallel()
	child := message(4, []byte{9})
	got, err := readArchive(anArchive(aSpan(3, 1, child), aSpan(2, 1, child), aSpan(9, 5), aSpan(1, 7, child, anAttribute(requestID, message(1, []byte("tr-1"))))))
	if err != nil {
		t.Fatal(err)
	}
	var data struct {
		Spans []struct {
			ID         string  `json:"span_id"`
			Parent     *string `json:"parent_span_id"`
			Attributes map[string]string
		}
	}
	if err := json.Unmarshal([]byte(got), &data); err != nil {
		t.Fatal(err, got)
	}
	var order []string
	for _, s := range data.Spans {
		order = append(order, s.ID, s.Attributes[requestID])
	}
	own := `"tr-` + strings.Repeat("0", 30) + `ab"`
	if want := "AAAAAAAAAAk= " + own + " AAAAAAAAAAI= " + own + " AAAAAAAAAAM= " + own + ` AAAAAAAAAAE= "tr-1"`; strings.Join(order, " ") != want || data.Spans[0].Parent != nil {
		t.Errorf("%s, and not %s", strings.Join(order, " "), want)
	}
}

// TestMalformedArchiveIsSaid fails when a traces.pb that is cut, or in which any byte is
// another, is a panic or takes for ever; when one that MLflow refuses is taken for a trace;
// or when what is read of one that breaks off is given as if it were all.
func TestMalformedArchiveIsSaid(t *testing.T) {
	t.Parallel()
	whole := anArchive(aSpan(1, 1, message(5, []byte("root")), anAttribute("a", fixed64(4, 1)), message(11, fixed64(1, 3), message(2, []byte("e"))), message(13, message(1, []byte{1}))), aSpan(2, 2, message(4, []byte{1})))
	want, err := readArchive(whole)
	if err != nil || !json.Valid([]byte(want)) {
		t.Fatal(want, err)
	}
	for n := range whole {
		if got, err := readArchive(whole[:n]); !errors.Is(err, ErrNoSpans) {
			t.Errorf("cut at %d: %q, %v", n, got, err)
		}
		for bit := range 8 {
			other := bytes.Clone(whole)
			other[n] ^= 1 << bit
			if got, err := readArchive(other); err == nil && !json.Valid([]byte(got)) && !strings.Contains(got, "NaN") {
				t.Errorf("byte %d is another: %s", n, got)
			}
		}
	}
	deep := message(1, []byte("end"))
	for range 2 * otlpDepth {
		deep = message(5, message(1, deep))
	}
	for what, b := range map[string][]byte{
		"nothing":               nil,
		"JSON":                  []byte(`{"spans": []}`),
		"no spans":              anArchive(),
		"two groups":            append(anArchive(aSpan(1, 1)), anArchive(aSpan(2, 1))...),
		"two scopes":            message(1, message(2, aSpan(1, 1)), message(2, aSpan(2, 1))),
		"a span without ids":    anArchive(message(2, message(5, []byte("x")))),
		"another trace's span":  anArchive(aSpan(1, 1), message(2, message(1, []byte{0xac}), message(2, []byte{2}))),
		"a trace id of 17":      anArchive(message(2, message(1, make([]byte, 17)), message(2, []byte{2}))),
		"a span id of 9":        anArchive(message(2, message(1, []byte{1}), message(2, make([]byte, 9)))),
		"a text that is none":   anArchive(aSpan(1, 1, message(5, []byte{0xff}))),
		"a value that is deep":  anArchive(aSpan(1, 1, anAttribute("a", deep))),
		"a length over the end": append(protowire.AppendTag(nil, 1, protowire.BytesType), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"an endless number":     bytes.Repeat([]byte{0xff}, 100),
		"a group":               protowire.AppendTag(nil, 1, protowire.StartGroupType),
	} {
		if got, err := readArchive(b); !errors.Is(err, ErrNoSpans) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

// zeros is an archive of any length that is all of one span, whose attributes are empty.
type zeros struct {
	head []byte
	fill []byte
	read *int64
}

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	*z.read += int64(len(p))
	for i := range p {
		if at := off + int64(i); at < int64(len(z.head)) {
			p[i] = z.head[at]
		} else {
			p[i] = z.fill[(at-int64(len(z.head)))%int64(len(z.fill))]
		}
	}
	return len(p), nil
}

// TestArchiveTakesLittle fails when an archive without an end, of a span without an end or
// of spans without an end, is read without one; or when a span of very many empty
// attributes, which protobuf's own types take a hundred times of its length for, takes more
// than a few times of it.
func TestArchiveTakesLittle(t *testing.T) {
	var read int64
	begin := func(inner []byte, n int64) []byte {
		for _, num := range []protowire.Number{2, 2, 1} {
			inner = append(protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.BytesType), uint64(n)+uint64(len(inner))), inner...)
		}
		return inner
	}
	ids := append(message(1, []byte{1}), message(2, []byte{1})...)
	attribute := message(9)
	open := func(n int64) (io.ReadCloser, error) {
		head := begin(ids, n)
		return ArchivedSpans(zeros{head, attribute, &read}, int64(len(head))+n)
	}
	for what, n := range map[string]int64{"a file": archiveBytes, "a span": archiveSpan} {
		read = 0
		if _, err := open(n); !errors.Is(err, errors.ErrUnsupported) || read > 1<<20 {
			t.Errorf("%s without an end: %v, %d bytes are read", what, err, read)
		}
	}
	read = 0
	spans := aSpan(1, 1)
	n := int64(len(spans)) * (archiveSpans + 1)
	var head []byte
	for _, num := range []protowire.Number{2, 1} {
		head = append(protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.BytesType), uint64(n)+uint64(len(head))), head...)
	}
	if _, err := ArchivedSpans(zeros{head, spans, &read}, int64(len(head))+n); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "more than the") {
		t.Errorf("spans without an end: %v", err)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const size = 4 << 20
	r, err := open(size)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.Copy(io.Discard, r)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; err != nil || text < size || took > 64*size {
		t.Errorf("%d bytes of text take %d bytes of memory, %v", text, took, err)
	}
}

// cut is a file that is cut when it has been read once.
type cut struct {
	b    []byte
	read int
	left int
}

func (c *cut) ReadAt(p []byte, off int64) (int, error) {
	b := c.b
	if c.read++; c.read > 1 {
		b = b[:c.left]
	}
	return bytes.NewReader(b).ReadAt(p, off)
}

// TestArchiveThatIsCutIsAnError fails when an archive that is cut behind its reader gives
// spans with zeros in them that were never written.
func TestArchiveThatIsCutIsAnError(t *testing.T) {
	t.Parallel()
	whole := anArchive(aSpan(1, 1, message(5, []byte("a long name of a span"))))
	for left := range whole {
		r, err := ArchivedSpans(&cut{b: whole, left: left}, int64(len(whole)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err == nil || strings.Contains(string(got), `\u0000`) {
			t.Errorf("cut at %d: %q, %v", left, got, err)
		}
		r.Close()
	}
}
