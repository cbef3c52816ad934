package hdfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jcmturner/gokrb5/v8/spnego"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// webRoot is where WebHDFS begins at each node (WebHdfsFileSystem.PATH_PREFIX).
const webRoot = "/webhdfs/v1"

// webTries is how often all name nodes are asked, if there is no answer.
const webTries = 3

// ask puts a question to the name node that is active. Its answer is of success, or a
// redirect.
func (c *webCluster) ask(ctx context.Context, path, op string, query url.Values) (*http.Response, error) {
	w, active, err := c.nodes()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for try := 0; ; try++ {
		for i := range w.names {
			k := (active + i) % len(w.names)
			resp, next, err := w.askOne(ctx, w.names[k], path, op, query)
			if err == nil {
				c.mu.Lock()
				c.active = k
				c.mu.Unlock()
				return resp, nil
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			last := try == min(c.d.Settings.Retries, webTries) || c.waited(began)
			if !next || last && i == len(w.names)-1 {
				return nil, err
			}
		}
		select {
		case <-time.After(min(c.d.Settings.Backoff, time.Second)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// waited tells whether nothing is asked again, as a mount's programs wait no longer for
// all tries together than for one.
func (c *webCluster) waited(since time.Time) bool {
	return c.d.Settings.Whole && time.Since(since) >= c.d.Settings.Silence
}

// askOne asks one name node. next says that another, or the same later, may do better.
func (w *webNodes) askOne(ctx context.Context, node *url.URL, path, op string, query url.Values) (resp *http.Response, next bool, err error) {
	u := *node
	u.Path = webRoot + path
	u.RawPath = webRoot + escape(path)
	q := url.Values{"op": {op}}
	for k, v := range query {
		q[k] = v
	}
	if w.user != "" {
		q.Set("user.name", w.user)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, false, errors.New("the address of a name node can't be asked")
	}
	if w.offline {
		return nil, false, rest.ErrOffline
	}
	if w.ticket != nil {
		ticket, err := w.ticket()
		if err != nil {
			return nil, false, err
		}
		if err := spnego.SetSPNEGOHeader(ticket, req, "HTTP/"+u.Hostname()); err != nil {
			if strings.Contains(err.Error(), "Networking_Error") {
				return nil, true, fmt.Errorf("the KDC is not reached for a ticket for HTTP/%s: %w", u.Hostname(), err)
			}
			return nil, false, artifact.NoCredentials(fmt.Sprintf("Kerberos gives no ticket for HTTP/%s: %v: run `kinit`", u.Hostname(), err))
		}
	}
	if resp, err = w.client.Do(req); err != nil {
		return nil, !errors.Is(err, fs.ErrPermission) && !errors.Is(err, rest.ErrOffline), err
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusTemporaryRedirect {
		return resp, false, nil
	}
	next, err = w.refusal(resp)
	return nil, next, err
}

// refusal is the meaning of an answer that is none of success (RemoteException). next says
// that another node, or the same later, may do better.
func (w *webNodes) refusal(resp *http.Response) (next bool, err error) {
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var said struct {
		RemoteException struct {
			Exception string `json:"exception"`
			Message   string `json:"message"`
		}
	}
	json.Unmarshal(body, &said)
	name := said.RemoteException.Exception
	message, _, _ := strings.Cut(said.RemoteException.Message, "\n")
	if len(message) > 300 {
		message = message[:300] + "…"
	}
	if name == "" {
		err = fmt.Errorf("%s answers %d without a word of WebHDFS's", resp.Request.URL.Host, resp.StatusCode)
		switch {
		case resp.StatusCode == http.StatusUnauthorized && w.ticket == nil:
			err = artifact.NoCredentials(resp.Request.URL.Host + " wants Kerberos: name Hadoop's configuration, which says so, in HADOOP_CONF_DIR")
		case resp.StatusCode == http.StatusUnauthorized:
			err = artifact.NoCredentials(resp.Request.URL.Host + " refuses the Kerberos ticket: run `kinit`")
		}
		return resp.StatusCode/100 == 5 || resp.StatusCode == http.StatusTooManyRequests, err
	}
	err = fmt.Errorf("%s answers %s: %s", resp.Request.URL.Host, name, message)
	switch name {
	case "FileNotFoundException":
		return false, fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	case "AccessControlException", "AuthorizationException", "SecurityException":
		return false, fmt.Errorf("%w: %w", err, fs.ErrPermission)
	case "StandbyException", "RetriableException", "ObserverRetryOnActiveException":
		return true, err
	}
	return resp.StatusCode/100 == 5, err
}

// answer asks a name node for JSON.
func (c *webCluster) answer(ctx context.Context, path, op string, query url.Values, out any) error {
	resp, err := c.ask(ctx, path, op, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s with a redirect", resp.Request.URL.Host, op)
	}
	w, _, err := c.nodes()
	if err == nil {
		err = rest.Decode(w.client.Answer(resp), out)
	}
	if err != nil {
		return fmt.Errorf("%s answers %s with no JSON of WebHDFS's: %w", resp.Request.URL.Host, op, err)
	}
	return nil
}

// open asks for n bytes of a file from off, of the data node that the name node names, and
// of another where that can't be reached.
func (c *webCluster) open(ctx context.Context, path string, off, n int64) (*http.Response, error) {
	w, _, err := c.nodes()
	if err != nil {
		return nil, err
	}
	query := url.Values{"offset": {fmt.Sprint(off)}, "length": {fmt.Sprint(n)}}
	var failed error
	var down []string
	began := time.Now()
	for range webTries {
		resp, err := c.ask(ctx, path, "OPEN", query)
		if err != nil {
			return nil, errors.Join(failed, err)
		}
		if resp.StatusCode == http.StatusOK {
			return resp, nil // a gateway, which has no data nodes (HttpFS)
		}
		resp.Body.Close()
		u, err := dataNodeOf(resp)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(rest.WithSigned(ctx), http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, errors.New("the address of a data node can't be asked")
		}
		resp, err = w.client.Do(req)
		if err == nil && resp.StatusCode == http.StatusOK {
			return resp, nil
		}
		again := ctx.Err() == nil && !errors.Is(err, fs.ErrPermission)
		if err == nil {
			again, err = w.refusal(resp)
		}
		if !again || c.waited(began) {
			return nil, err
		}
		failed, down = err, append(down, u.Host)
		query.Set("excludedatanodes", strings.Join(down, ","))
	}
	return nil, failed
}

// dataNodeOf is where a name node leads to. That is a stranger's word: it must be a node of
// WebHDFS that is asked for the same path, in no less safe a way. Which addresses may be
// reached rest.Reach decides.
func dataNodeOf(resp *http.Response) (*url.URL, error) {
	asked := resp.Request.URL
	u, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("%s leads to no data node", asked.Host) // the error would quote a token
	}
	if u.Path != asked.Path || u.Scheme != asked.Scheme || u.User != nil || !strings.EqualFold(u.Query().Get("op"), "OPEN") {
		return nil, fmt.Errorf("%s leads to %s, which is no data node's address of what was asked for", asked.Host, rest.Redact(u.String()))
	}
	return u, nil
}

// escape encodes every segment of a path.
func escape(path string) string {
	parts := strings.Split(path, "/")
	for i, s := range parts {
		parts[i] = url.PathEscape(s)
	}
	return strings.Join(parts, "/")
}
