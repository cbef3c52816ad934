package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
)

// offers is what a server says of itself (server-info, MLflow 3). Of a server that has
// no such page (MLflow 2) it is empty.
type offers struct {
	Downloads  bool `json:"multipart_downloads_enabled"`
	Workspaces bool `json:"workspaces_enabled"`
}

func (c *Client) offers(ctx context.Context) (offers, error) {
	return c.info.Get(ctx, struct{}{}, func(ctx context.Context) (o offers, err error) {
		for _, page := range []string{"server-info", "server-features"} { // which is the first one's earlier name
			if err = c.JSON(ctx, "/api/3.0/mlflow/"+page, nil, nil, &o); !errors.Is(err, fs.ErrNotExist) {
				return o, err
			}
		}
		return offers{}, nil
	})
}

// OffersPresigned asks whether the server signs URLs for what its artifact API
// serves (server-info, MLflow 3), and says why not.
func (c *Client) OffersPresigned(ctx context.Context) error {
	if c.databricks {
		return fmt.Errorf("a Databricks workspace has no artifact API of MLflow's: %w", errors.ErrUnsupported)
	}
	o, err := c.offers(ctx)
	if err == nil && !o.Downloads {
		err = fmt.Errorf("the tracking server offers no presigned URLs: %w", errors.ErrUnsupported)
	}
	return err
}

// API is JSON for path below MLflow's tracking and registry API. Where the environment
// names a workspace, a server that has none would answer with what is everybody's: it is
// refused, as by MLflow's client (mlflow.store.workspace_rest_store_mixin).
func (c *Client) API(ctx context.Context, path string, query url.Values, body, out any) error {
	return c.api(ctx, "/api/2.0/mlflow/"+path, query, body, out)
}

// API3 is API of what MLflow 3 has in a version of its own.
func (c *Client) API3(ctx context.Context, path string, query url.Values, body, out any) error {
	return c.api(ctx, "/api/3.0/mlflow/"+path, query, body, out)
}

func (c *Client) api(ctx context.Context, path string, query url.Values, body, out any) error {
	if err := c.ownWorkspace(ctx, path); err != nil {
		return err
	}
	return c.JSON(ctx, path, query, body, out)
}

// Stream is the body of the answer to a GET, of any length. ctx is for all of it.
func (c *Client) Stream(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	if err := c.ownWorkspace(ctx, path); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL(path, query).String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if err := CheckStatus(resp); err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ownWorkspace is why path is not to be asked for: there is no workspace to ask in.
func (c *Client) ownWorkspace(ctx context.Context, path string) error {
	workspace := ""
	if c.creds != nil {
		workspace = c.creds.get().workspace
	}
	if workspace != "" {
		switch o, err := c.offers(ctx); {
		case err != nil:
			return err
		case !o.Workspaces:
			return noWorkspaces(path, workspace)
		}
	}
	return nil
}

// noWorkspaces is what a server of MLflow 3 without workspaces answers itself.
func noWorkspaces(path, workspace string) error {
	return &Error{What: path, Status: http.StatusBadRequest, Code: "FEATURE_DISABLED",
		Message: fmt.Sprintf("the server has no workspaces, and %q is asked for: unset MLFLOW_WORKSPACE, or start the server with --enable-workspaces", workspace)}
}
