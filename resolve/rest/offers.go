package rest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// OffersPresigned asks whether the server signs URLs for what its artifact API
// serves (server-info, MLflow 3), and says why not.
func (c *Client) OffersPresigned(ctx context.Context) error {
	offers, err := c.presigned.Get(ctx, struct{}{}, func(ctx context.Context) (bool, error) {
		var info struct {
			Downloads bool `json:"multipart_downloads_enabled"`
		}
		err := c.JSON(ctx, "/api/3.0/mlflow/server-info", nil, nil, &info)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // MLflow 2
		}
		return info.Downloads, err
	})
	if err == nil && !offers {
		err = fmt.Errorf("the tracking server offers no presigned URLs: %w", errors.ErrUnsupported)
	}
	return err
}
