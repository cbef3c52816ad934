package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime/debug"
	"strings"
)

// Bounds of one answer that is read into memory: of a list's item, or of what is in
// no list, in bytes; and of a list, in items. MLflow's own pages have 50,000 at most,
// and a directory of artifacts has no pages.
const (
	maxItem  = 8 << 20
	maxItems = 1 << 20
)

// maxAnswer is how long an answer may be that is read into memory, in bytes: a
// million names. What its lists' items take may be as much again.
const maxAnswer = 128 << 20

// Of the memory that the process may take, if that is bounded (GOMEMLIMIT), an answer
// may be one in answerPart bytes, and an item one in itemPart.
const (
	answerPart = 8
	itemPart   = 32
)

// ErrTooLong says that an answer holds an item that is not read into memory.
var ErrTooLong = errors.New("an item is longer")

// mostOf is most, or a part of the memory that the process may take.
func mostOf(most, part int64) int64 { return min(most, debug.SetMemoryLimit(-1)/part) }

// Decode reads one JSON object from r into out, a pointer to a struct, as
// encoding/json does, but for lists of its fields: they are read item by item, so
// that no more than one item's JSON is in memory. A field that out has not is passed
// over. What is longer than a bound is an error.
func Decode(r io.Reader, out any) error {
	most := int(mostOf(maxItem, itemPart))
	in := &itemReader{r: r, left: most, most: most}
	dec := json.NewDecoder(in)
	next := func() (json.Token, error) {
		in.left = most
		return dec.Token()
	}
	if t, err := next(); err != nil || t != json.Delim('{') {
		return noObject(err)
	}
	fields := fieldsOf(reflect.ValueOf(out).Elem())
	for dec.More() {
		key, err := next()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		in.left = most
		switch f, ok := fields[strings.ToLower(name)]; {
		case !ok:
			err = pass(next)
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() != reflect.Uint8:
			err = decodeList(dec, in, next, f)
		default:
			err = dec.Decode(f.Addr().Interface())
		}
		if err != nil {
			return err
		}
	}
	_, err := next()
	return err
}

func noObject(err error) error {
	if err == nil {
		err = errors.New("it is no object")
	}
	return err
}

// fieldsOf are the fields of a struct by their names in JSON, in lower case.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		out[strings.ToLower(name)] = v.Field(i)
	}
	return out
}

// decodeList appends the items of a list to a slice; null has none. They lie in parts
// until the last has come, each as large as those before it: a list that grows leaves
// copies of itself as garbage.
func decodeList(dec *json.Decoder, in *itemReader, next func() (json.Token, error), list reflect.Value) error {
	t, err := next()
	switch {
	case err != nil:
		return err
	case t == nil:
		return nil
	case t != json.Delim('['):
		return fmt.Errorf("%v stands where a list should", t)
	}
	size := int64(list.Type().Elem().Size())
	most := int(min(maxItems, mostOf(maxAnswer, answerPart)/max(size, 1)))
	var parts []reflect.Value
	last := reflect.New(list.Type()).Elem() // of the parts
	n := 0
	for ; dec.More(); n++ {
		if n == most {
			return fmt.Errorf("a list has more than %d items", most)
		}
		at := last.Len()
		if at == last.Cap() {
			parts = append(parts, last)
			last = reflect.New(list.Type()).Elem()
			last.Grow(min(max(n, 16), most-n))
			at = 0
		}
		last.SetLen(at + 1)
		in.left = in.most
		if err := dec.Decode(last.Index(at).Addr().Interface()); err != nil {
			return err
		}
	}
	if _, err = next(); err != nil || n == 0 {
		return err
	}
	list.Grow(n)
	for _, part := range append(parts, last) {
		list.Set(reflect.AppendSlice(list, part))
	}
	return nil
}

// pass reads over one value.
func pass(next func() (json.Token, error)) error {
	for depth := 0; ; {
		t, err := next()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// itemReader ends in an error when more than left bytes are read for one item.
type itemReader struct {
	r    io.Reader
	left int
	most int
}

func (i *itemReader) Read(p []byte) (int, error) {
	if i.left <= 0 {
		return 0, fmt.Errorf("%w than %d bytes", ErrTooLong, i.most)
	}
	n, err := i.r.Read(p)
	i.left -= n
	return n, err
}
