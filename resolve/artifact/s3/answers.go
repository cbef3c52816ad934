package s3

import (
	"context"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// onAnswer has f look at each answer as it arrives: of a client of the SDK's own nothing
// else shows it.
func onAnswer(name string, f func(*smithyhttp.Request, *smithyhttp.Response, time.Time)) func(*middleware.Stack) error {
	look := func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		began := time.Now()
		out, meta, err := next.HandleDeserialize(ctx, in)
		req, asked := in.Request.(*smithyhttp.Request)
		if resp, ok := out.RawResponse.(*smithyhttp.Response); ok && asked {
			f(req, resp, began)
		}
		return out, meta, err
	}
	return func(s *middleware.Stack) error {
		return s.Deserialize.Add(middleware.DeserializeMiddlewareFunc("mlflowfs."+name, look), middleware.After)
	}
}

// noteClock notes the time of each answer.
func noteClock(clocks *rest.Clocks) func(*middleware.Stack) error {
	return onAnswer("NoteClock", func(_ *smithyhttp.Request, resp *smithyhttp.Response, began time.Time) {
		clocks.Note(resp.Response, began)
	})
}

// shortAnswers has an answer that is too long for memory end in an error: of S3, and of
// who gives credentials for it (STS, SSO, a machine's metadata service).
var shortAnswers = onAnswer("ShortAnswers", func(req *smithyhttp.Request, resp *smithyhttp.Response, _ time.Time) {
	rest.Shorten(req.Request, resp.Response)
})
