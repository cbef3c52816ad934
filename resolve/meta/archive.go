package meta

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// ArchiveFile is the file of an archived trace's spans among its artifacts
// (mlflow.tracing.otel.otel_archival).
const ArchiveFile = "traces.pb"

// ErrNoSpans says that what stands where a trace's spans should is something else.
var ErrNoSpans = errors.New("it holds no spans of MLflow's")

// The most that is read of an archive. MLflow knows no limits; its own servers hold all
// of a trace in memory.
const (
	archiveBytes = 1 << 30
	archiveSpans = 1 << 18 // 32 bytes of memory each
	archiveSpan  = 32 << 20
)

// ArchivedSpans gives the spans of a traces.pb as [Traces.Spans] does: an OpenTelemetry
// TracesData of one trace, as MLflow writes it (traces_data_pb_to_spans). All of it is read
// once, for the order of the spans, and a span at a time is in memory.
func ArchivedSpans(file io.ReaderAt, size int64) (io.ReadCloser, error) {
	if size > archiveBytes {
		return nil, fmt.Errorf("%s has %d bytes, and more than %d are not read: %w", ArchiveFile, size, archiveBytes, errors.ErrUnsupported)
	}
	a := &archive{in: bufio.NewReaderSize(io.NewSectionReader(file, 0, size), 64<<10)}
	if err := a.index(size); err != nil {
		return nil, err
	}
	return &spanReader{next: func(token string) (Page[string], error) {
		if token == "" { // no span is read before it is wanted
			return Page[string]{Next: offsetToken(0)}, nil
		}
		at := tokenOffset(token)
		s := a.spans[at]
		raw := make([]byte, s.size)
		if n, err := file.ReadAt(raw, s.at); n < len(raw) { // it was cut since
			return Page[string]{}, fmt.Errorf("%s ends after %d of %d bytes of a span: %w", ArchiveFile, n, len(raw), errors.Join(io.ErrUnexpectedEOF, err))
		}
		text, err := otlpSpan(raw)
		p := Page[string]{Items: []string{string(text)}}
		if at+1 < len(a.spans) {
			p.Next = offsetToken(at + 1)
		}
		return p, err
	}}, nil
}

// archive is a traces.pb that is looked through for its spans.
type archive struct {
	in    *bufio.Reader
	at    int64 // in the file
	trace [16]byte
	spans []archivedSpan
}

// archivedSpan is what tells a span's place among the others, and in the file.
type archivedSpan struct {
	start, id uint64
	at        int64
	size      int32
	child     bool
}

// errMalformed is ErrNoSpans of a file that is no archive.
func errMalformed(format string, args ...any) error {
	return fmt.Errorf("%s is malformed: %s: %w", ArchiveFile, fmt.Sprintf(format, args...), ErrNoSpans)
}

// index finds the spans, and puts them in MLflow's order: the root first, the others as
// they began.
func (a *archive) index(size int64) error {
	resources, scopes := 0, 0
	err := a.message(size, func(f otlpField, n int64) error {
		if !f.is(1, protowire.BytesType) { // resource_spans
			return nil
		}
		resources++
		return a.message(n, func(f otlpField, n int64) error {
			if !f.is(2, protowire.BytesType) { // scope_spans
				return nil
			}
			scopes++
			return a.message(n, func(f otlpField, n int64) error {
				if !f.is(2, protowire.BytesType) { // spans
					return nil
				}
				return a.span(n)
			})
		})
	})
	switch {
	case err != nil:
		return err
	case resources != 1 || scopes != 1 || len(a.spans) == 0:
		return errMalformed("it has %d groups of resources, %d of scopes and %d spans", resources, scopes, len(a.spans))
	}
	slices.SortStableFunc(a.spans, func(x, y archivedSpan) int {
		if x.child != y.child {
			if y.child {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(x.start, y.start), cmp.Compare(x.id, y.id))
	})
	return nil
}

// span notes a span of n bytes.
func (a *archive) span(n int64) error {
	switch {
	case n > archiveSpan:
		return fmt.Errorf("%s has a span of %d bytes, and none of more than %d is read: %w", ArchiveFile, n, archiveSpan, errors.ErrUnsupported)
	case len(a.spans) == archiveSpans:
		return fmt.Errorf("%s has more than the %d spans that are read: %w", ArchiveFile, archiveSpans, errors.ErrUnsupported)
	}
	s := archivedSpan{at: a.at, size: int32(n)}
	var trace [16]byte
	var hasTrace, hasID bool
	err := a.message(n, func(f otlpField, n int64) (err error) {
		switch {
		case f.is(1, protowire.BytesType): // trace_id
			err = a.id(trace[:], n)
			hasTrace = n > 0
		case f.is(2, protowire.BytesType): // span_id
			s.id, err = a.number(n)
			hasID = n > 0
		case f.is(4, protowire.BytesType): // parent_span_id
			var parent uint64
			parent, err = a.number(n)
			s.child = parent != 0
		case f.is(7, protowire.Fixed64Type): // start_time_unix_nano
			s.start, err = a.number(n)
			s.start = bits.ReverseBytes64(s.start)
		}
		return err
	})
	if err == nil && (!hasTrace || !hasID || len(a.spans) > 0 && trace != a.trace) {
		err = errMalformed("a span is without an id, or of another trace")
	}
	a.trace = trace
	a.spans = append(a.spans, s)
	return err
}

// id reads an id of n bytes as the end of one that may have more.
func (a *archive) id(to []byte, n int64) error {
	if n > int64(len(to)) {
		return errMalformed("an id has %d bytes", n)
	}
	clear(to)
	read, err := io.ReadFull(a.in, to[int64(len(to))-n:])
	a.at += int64(read)
	return a.cut(err)
}

func (a *archive) number(n int64) (uint64, error) {
	var b [8]byte
	err := a.id(b[:], n)
	return binary.BigEndian.Uint64(b[:]), err
}

// message reads a message of n bytes. Of each field see may read as many bytes as it has.
func (a *archive) message(n int64, see func(f otlpField, n int64) error) error {
	end := a.at + n
	for a.at < end {
		f, size, err := a.field()
		if err != nil {
			return a.cut(err)
		}
		if f.num < 1 || size > end-a.at {
			return errMalformed("at byte %d", a.at)
		}
		next := a.at + size
		if err := see(f, size); err != nil {
			return err
		}
		if err := a.skip(next - a.at); err != nil {
			return err
		}
	}
	if a.at != end {
		return errMalformed("at byte %d", a.at)
	}
	return nil
}

// field reads what stands before the bytes of a field, and how many these are. The number
// of one that is none is 0.
func (a *archive) field() (f otlpField, size int64, err error) {
	tag, err := binary.ReadUvarint(a)
	if err != nil {
		return f, 0, err
	}
	switch f.num, f.kind = protowire.DecodeTag(tag); f.kind {
	case protowire.VarintType:
		f.value, err = binary.ReadUvarint(a)
	case protowire.Fixed64Type:
		size = 8
	case protowire.Fixed32Type:
		size = 4
	case protowire.BytesType:
		f.value, err = binary.ReadUvarint(a)
		size = int64(min(f.value, math.MaxInt64))
	default: // a group, which no version of it has
		f.num = 0
	}
	return f, size, err
}

// ReadByte is for varints.
func (a *archive) ReadByte() (byte, error) {
	b, err := a.in.ReadByte()
	if err == nil {
		a.at++
	}
	return b, err
}

func (a *archive) skip(n int64) error {
	done, err := a.in.Discard(int(n))
	a.at += int64(done)
	return a.cut(err)
}

// errVarint is binary.ReadUvarint's of more than ten bytes.
var errVarint = func() error {
	_, err := binary.ReadUvarint(bytes.NewReader(bytes.Repeat([]byte{0xff}, binary.MaxVarintLen64)))
	return err
}()

// cut is err, or says that the file ends too early, or has a number that is none.
func (a *archive) cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF || err == errVarint {
		return errMalformed("at byte %d", a.at)
	}
	return err
}
