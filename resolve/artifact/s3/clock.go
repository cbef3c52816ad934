package s3

import (
	"context"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// noteClock notes the time of each answer: of a client of the SDK's own nothing else
// shows it.
func noteClock(clocks *rest.Clocks) middleware.DeserializeMiddleware {
	return middleware.DeserializeMiddlewareFunc("mlflowfs.NoteClock", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		began := time.Now()
		out, meta, err := next.HandleDeserialize(ctx, in)
		if resp, ok := out.RawResponse.(*smithyhttp.Response); ok {
			clocks.Note(resp.Response, began)
		}
		return out, meta, err
	})
}
