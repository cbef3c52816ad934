package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
)

// Error is a server's refusal.
type Error struct {
	What    string // what was asked: method and path, no query
	Status  int    // HTTP status
	Code    string // MLflow's error_code; empty where the body was no MLflow error
	Message string // MLflow's message, or the beginning of the body

	// Name says that one thing was asked for by its name: a refusal of the name
	// means that there is none.
	Name bool
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %d %s", e.What, e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is matches fs.ErrNotExist and fs.ErrPermission.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Status == http.StatusNotFound || e.Name && e.Status == http.StatusBadRequest && e.Code == "INVALID_PARAMETER_VALUE"
	case fs.ErrPermission:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	}
	return false
}

var _ error = (*Error)(nil)

// NoSuchEndpoint tells whether the server does not know what was asked at all
// (an older MLflow), as opposed to a thing that is not there.
func (e *Error) NoSuchEndpoint() bool {
	return e.Status == http.StatusNotFound && e.Code == "" || e.Code == "ENDPOINT_NOT_FOUND"
}

// Final tells whether MLflow itself refuses, and would again: 4xx with an error_code, but
// for what is worth another try.
func (e *Error) Final() bool {
	return e.Code != "" && e.Status/100 == 4 && e.Status != http.StatusRequestTimeout && e.Status != http.StatusTooManyRequests
}

// CheckStatus turns an answer that is neither 200 nor 206 into an *Error and
// closes its body.
func CheckStatus(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return nil
	}
	defer resp.Body.Close()
	e := &Error{Status: resp.StatusCode}
	if resp.Request != nil {
		e.What = resp.Request.Method + " " + resp.Request.URL.EscapedPath()
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var msg struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &msg) == nil && msg.Code != "" {
		e.Code, e.Message = msg.Code, firstLine(msg.Message)
	} else if t := strings.TrimSpace(string(body)); t != "" && !strings.HasPrefix(t, "<") {
		e.Message = firstLine(t)
	}
	return e
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}

// IsAnswer tells whether err is an answer to what was asked, as opposed to one
// that a server gives when it can't answer, or none.
func IsAnswer(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		switch e.Status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests:
			return false
		}
		return e.Status < 500
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported)
}
