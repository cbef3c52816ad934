package rest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Int is a number that JSON may give as a number or as a string, as protobuf's
// JSON does with 64-bit integers.
type Int int64

// UnmarshalJSON takes 12 and "12".
func (n *Int) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" || s == "" {
		return nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is no integer", s)
	}
	*n = Int(v)
	return nil
}

var _ json.Unmarshaler = (*Int)(nil)
