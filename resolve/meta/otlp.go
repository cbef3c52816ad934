package meta

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"iter"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// A span of OpenTelemetry's (trace.proto, common.proto) is written here as MLflow does
// (Span.from_otel_proto and Span.to_dict), as it is read: no more is made of it in memory
// than its text.

// otlpField is a field of a message: a number of its own kind, or bytes.
type otlpField struct {
	num   protowire.Number
	kind  protowire.Type
	value uint64
	bytes []byte
}

// is tells whether the field is the one of a number and a kind: one of another kind is as
// one that is not known.
func (f *otlpField) is(num protowire.Number, kind protowire.Type) bool {
	return f.num == num && f.kind == kind
}

// otlp gives the fields of a message, and an error of one that is none.
func otlp(b []byte) iter.Seq2[otlpField, error] {
	return func(yield func(otlpField, error) bool) {
		for len(b) > 0 {
			var f otlpField
			var n, m int
			f.num, f.kind, n = protowire.ConsumeTag(b)
			if n > 0 {
				switch b = b[n:]; f.kind {
				case protowire.VarintType:
					f.value, m = protowire.ConsumeVarint(b)
				case protowire.Fixed64Type:
					f.value, m = protowire.ConsumeFixed64(b)
				case protowire.BytesType:
					f.bytes, m = protowire.ConsumeBytes(b)
				default:
					m = protowire.ConsumeFieldValue(f.num, f.kind, b)
				}
			}
			if n <= 0 || m < 0 {
				yield(f, errMalformed("a field of a span"))
				return
			}
			if b = b[m:]; !yield(f, nil) {
				return
			}
		}
	}
}

// otlpWriter writes JSON as Python's json.dumps(…, ensure_ascii=False) does. Its first
// error is the last of it.
type otlpWriter struct {
	bytes.Buffer
	err error
}

// each calls f for the fields of a message of a number, which are messages or texts.
func (w *otlpWriter) each(b []byte, num protowire.Number, f func([]byte)) {
	for field, err := range otlp(b) {
		switch {
		case w.err != nil:
			return
		case err != nil:
			w.err = err
		case field.is(num, protowire.BytesType):
			f(field.bytes)
		}
	}
}

// list is each with commas between.
func (w *otlpWriter) list(open string, b []byte, num protowire.Number, end string, f func([]byte)) {
	w.WriteString(open)
	first := true
	w.each(b, num, func(b []byte) {
		if !first {
			w.WriteString(", ")
		}
		first = false
		f(b)
	})
	w.WriteString(end)
}

// last is the last field of a number and a kind.
func (w *otlpWriter) last(b []byte, num protowire.Number, kind protowire.Type) (last otlpField) {
	for field, err := range otlp(b) {
		if err != nil && w.err == nil {
			w.err = err
		}
		if field.is(num, kind) {
			last = field
		}
	}
	return last
}

func (w *otlpWriter) bytesOf(b []byte, num protowire.Number) []byte {
	return w.last(b, num, protowire.BytesType).bytes
}

func (w *otlpWriter) uintOf(b []byte, num protowire.Number, kind protowire.Type) string {
	return strconv.FormatUint(w.last(b, num, kind).value, 10)
}

// id writes the bytes of an id in its full length, in base64.
func (w *otlpWriter) id(id []byte, length int) {
	w.base64(fullID(id, length))
}

func (w *otlpWriter) base64(b []byte) {
	w.WriteString(`"` + base64.StdEncoding.EncodeToString(b) + `"`)
}

// fullID is an id as the number that MLflow takes it for.
func fullID(id []byte, length int) []byte {
	full := make([]byte, length)
	copy(full[max(0, length-len(id)):], id[max(0, len(id)-length):])
	return full
}

const requestID = "mlflow.traceRequestId"

// otlpSpan is the JSON of a span.
func otlpSpan(b []byte) ([]byte, error) {
	w := &otlpWriter{}
	trace := fullID(w.bytesOf(b, 1), 16)
	w.WriteString(`{"trace_id": `)
	w.id(trace, 16)
	w.WriteString(`, "span_id": `)
	w.id(w.bytesOf(b, 2), 8)
	w.WriteString(`, "parent_span_id": `)
	if parent := fullID(w.bytesOf(b, 4), 8); !bytes.Equal(parent, make([]byte, 8)) {
		w.id(parent, 8)
	} else {
		w.WriteString("null")
	}
	w.WriteString(`, "name": `)
	w.text(w.bytesOf(b, 5))
	w.WriteString(`, "start_time_unix_nano": ` + w.uintOf(b, 7, protowire.Fixed64Type) +
		`, "end_time_unix_nano": ` + w.uintOf(b, 8, protowire.Fixed64Type))
	w.list(`, "events": [`, b, 11, "]", w.event)
	w.status(w.bytesOf(b, 15))
	// An attribute is JSON in a text. The trace's own id is made up where there is none.
	own, value := false, otlpWriter{}
	w.list(`, "attributes": {`, b, 9, "", func(attribute []byte) {
		key := w.bytesOf(attribute, 1)
		own = own || string(key) == requestID
		value.Reset()
		value.value(w.bytesOf(attribute, 2), 0)
		if value.err != nil && w.err == nil {
			w.err = value.err
		}
		w.text(key)
		w.WriteString(": ")
		w.text(value.Bytes())
	})
	if !own {
		if w.Bytes()[w.Len()-1] != '{' {
			w.WriteString(", ")
		}
		w.WriteString(`"` + requestID + `": "\"tr-` + hex.EncodeToString(trace) + `\""`)
	}
	w.list(`}, "links": [`, b, 13, "]}", w.link)
	return w.Bytes(), w.err
}

func (w *otlpWriter) event(b []byte) {
	w.WriteString(`{"name": `)
	w.text(w.bytesOf(b, 2))
	w.WriteString(`, "time_unix_nano": ` + w.uintOf(b, 1, protowire.Fixed64Type))
	w.list(`, "attributes": {`, b, 3, "}}", func(b []byte) { w.pair(b, 0) })
}

func (w *otlpWriter) link(b []byte) {
	w.WriteString(`{"trace_id": "tr-` + hex.EncodeToString(fullID(w.bytesOf(b, 1), 16)) + `", "span_id": "` + hex.EncodeToString(fullID(w.bytesOf(b, 2), 8)) + `", "attributes": `)
	before := w.Len()
	w.list("{", b, 4, "}", func(b []byte) { w.pair(b, 0) })
	if w.Len() == before+2 {
		w.Truncate(before)
		w.WriteString("null")
	}
	w.WriteString("}")
}

// status has a message for an error alone, as OpenTelemetry's SDK.
func (w *otlpWriter) status(b []byte) {
	code, message := "UNSET", []byte(nil)
	switch w.last(b, 3, protowire.VarintType).value {
	case 1:
		code = "OK"
	case 2:
		code, message = "ERROR", w.bytesOf(b, 2)
	}
	w.WriteString(`, "status": {"code": "STATUS_CODE_` + code + `", "message": `)
	w.text(message)
	w.WriteString("}")
}

// pair writes a KeyValue.
func (w *otlpWriter) pair(b []byte, depth int) {
	w.text(w.bytesOf(b, 1))
	w.WriteString(": ")
	w.value(w.bytesOf(b, 2), depth)
}

// otlpDepth is how deep a value may be, as Python's protobuf reads it.
const otlpDepth = 100

// value writes an AnyValue. MLflow writes no bytes.
func (w *otlpWriter) value(b []byte, depth int) {
	if depth > otlpDepth {
		w.err = errMalformed("a value is too deep")
		return
	}
	var v otlpField
	for field, err := range otlp(b) {
		if err != nil {
			w.err = err
			return
		}
		if field.num >= 1 && field.num <= 7 {
			v = field
		}
	}
	switch {
	case v.is(1, protowire.BytesType):
		w.text(v.bytes)
	case v.is(2, protowire.VarintType):
		w.WriteString(strconv.FormatBool(v.value != 0))
	case v.is(3, protowire.VarintType):
		w.WriteString(strconv.FormatInt(int64(v.value), 10))
	case v.is(4, protowire.Fixed64Type):
		w.float(math.Float64frombits(v.value))
	case v.is(5, protowire.BytesType):
		w.list("[", v.bytes, 1, "]", func(b []byte) { w.value(b, depth+1) })
	case v.is(6, protowire.BytesType):
		w.list("{", v.bytes, 1, "}", func(b []byte) { w.pair(b, depth+1) })
	case v.is(7, protowire.BytesType):
		w.base64(v.bytes)
	default:
		w.WriteString("null")
	}
}

func (w *otlpWriter) float(f float64) {
	switch {
	case math.IsNaN(f):
		w.WriteString("NaN")
	case math.IsInf(f, 0):
		w.WriteString(map[bool]string{true: "Infinity", false: "-Infinity"}[f > 0])
	default:
		w.WriteString(pythonFloat(f))
	}
}

// text writes a text.
func (w *otlpWriter) text(s []byte) {
	if !utf8.Valid(s) && w.err == nil {
		w.err = errMalformed("a text is not UTF-8")
	}
	const escaped, as = "\"\\\b\f\n\r\t", `"\bfnrt`
	w.WriteByte('"')
	for _, c := range s {
		if i := strings.IndexByte(escaped, c); i >= 0 {
			w.WriteByte('\\')
			w.WriteByte(as[i])
		} else if c < ' ' {
			w.WriteString(`\u00` + hex.EncodeToString([]byte{c}))
		} else {
			w.WriteByte(c)
		}
	}
	w.WriteByte('"')
}
