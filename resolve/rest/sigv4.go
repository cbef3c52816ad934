package rest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
)

// sigV4 signs requests as MLFLOW_TRACKING_AWS_SIGV4 asks for: with the AWS
// user's own credentials and region, for the service execute-api
// (mlflow.utils.rest_utils).
type sigV4 struct {
	signer *v4.Signer
	env    Env

	mu     sync.Mutex // guards what follows
	loaded bool
	conf   aws.Config
}

// signs tells whether requests to the tracking server are signed so.
func signs(env Env) bool { return Truthy(env("MLFLOW_TRACKING_AWS_SIGV4")) }

// load reads AWS's environment and profiles, when the first request is signed.
func (s *sigV4) load(ctx context.Context) (aws.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		return s.conf, nil
	}
	user, err := ReadAWSUser(s.env, s.env("HOME"))
	if err == nil && user.Region() == "" {
		err = errors.New("there is no region: set AWS_DEFAULT_REGION, or write it in the AWS profile")
	}
	if err != nil {
		return aws.Config{}, err
	}
	conf, err := config.LoadDefaultConfig(ctx, user.Options()...)
	if err != nil {
		return conf, err
	}
	s.conf, s.loaded = conf, true
	return conf, nil
}

// sign adds the signature to req, which is the caller's own copy.
func (s *sigV4) sign(req *http.Request) error {
	conf, err := s.load(req.Context())
	if err != nil {
		return err
	}
	creds, err := conf.Credentials.Retrieve(req.Context())
	if err != nil {
		return err
	}
	h := sha256.New()
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return err
		}
		defer body.Close()
		if _, err := io.Copy(h, body); err != nil {
			return err
		}
	}
	// A connection's own headers are not signed.
	return s.signer.SignHTTP(req.Context(), creds, req, hex.EncodeToString(h.Sum(nil)), "execute-api", conf.Region, time.Now())
}
