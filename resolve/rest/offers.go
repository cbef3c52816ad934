package rest

import (
	"context"
	"errors"
	"fmt"
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
	path = "/api/2.0/mlflow/" + path
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
	return c.JSON(ctx, path, query, body, out)
}

// noWorkspaces is what a server of MLflow 3 without workspaces answers itself.
func noWorkspaces(path, workspace string) error {
	return &Error{What: path, Status: http.StatusBadRequest, Code: "FEATURE_DISABLED",
		Message: fmt.Sprintf("the server has no workspaces, and %q is asked for: unset MLFLOW_WORKSPACE, or start the server with --enable-workspaces", workspace)}
}
