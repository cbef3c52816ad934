package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
)

// oauthClient is who asks for tokens; zero where nobody does.
type oauthClient struct{ id, secret string }

// oauthTokens gives tokens for a client's id and secret, by the client credentials grant
// (RFC 6749, section 4.4) of a Databricks workspace. A token is asked for once for all who
// want it, and again before its end.
type oauthTokens struct {
	base *url.URL
	next http.RoundTripper
	set  Settings
	memo *cache.Memo[oauthClient, oauthToken]
}

type oauthToken struct {
	token string
	at    time.Time
	life  time.Duration
}

func newOAuthTokens(base *url.URL, next http.RoundTripper, set Settings) *oauthTokens {
	return &oauthTokens{base, next, set, cache.NewMemo[oauthClient](10, nil, func(t oauthToken) time.Duration { return t.life * 4 / 5 })}
}

// get gives a token.
func (o *oauthTokens) get(ctx context.Context, c oauthClient) (string, error) {
	t, err := o.memo.Get(cache.NotAnew(ctx), c, func(ctx context.Context) (oauthToken, error) {
		w := o.set.Watch(ctx, "the token of the service principal")
		t, err := o.ask(w.Context(), c)
		return t, w.End(err)
	})
	return t.token, err
}

// refused forgets the token of c, which the workspace refuses, and tells whether there may
// be a better one: it was not given just now.
func (o *oauthTokens) refused(c oauthClient) bool {
	t, ok := o.memo.Peek(c)
	if !ok || time.Since(t.at) < readAgain {
		return !ok
	}
	o.memo.Drop(c)
	return true
}

func (o *oauthTokens) ask(ctx context.Context, c oauthClient) (oauthToken, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"all-apis"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.base.JoinPath("/oidc/v1/token").String(), strings.NewReader(form.Encode()))
	if err != nil {
		return oauthToken{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(c.id, c.secret)
	resp, err := o.next.RoundTrip(req)
	if err != nil {
		return oauthToken{}, err
	}
	if err := CheckStatus(resp); err != nil {
		var refusal *Error
		if errors.As(err, &refusal) && IsAnswer(err) {
			// Its words may be of the secret's.
			refusal.Status = http.StatusUnauthorized // a 404 is about no run and no model
			refusal.Message = "the service principal's client_id and client_secret (DATABRICKS_CLIENT_ID, DATABRICKS_CLIENT_SECRET) are refused"
			return oauthToken{}, &noRetry{err}
		}
		return oauthToken{}, err
	}
	defer resp.Body.Close()
	var out struct {
		Token string `json:"access_token"`
		Life  Int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&out); err != nil || out.Token == "" {
		return oauthToken{}, &noRetry{fmt.Errorf("%s answers with no token", req.URL.Path)}
	}
	life := time.Duration(out.Life) * time.Second
	if life <= 0 {
		life = time.Minute
	}
	return oauthToken{out.Token, time.Now(), life}, nil
}
