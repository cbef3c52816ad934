package s3

import (
	"context"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
)

// decodeKeys gives the keys of a listing as they are. XML has no control
// characters, so each listing asks for encoded keys, as botocore's do
// (botocore.handlers.decode_list_object_v2); a store that knows of no encoding
// sends them plain, and does not say that it encoded them.
var decodeKeys = middleware.InitializeMiddlewareFunc("mlflowfs.DecodeKeys", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	out, meta, err := next.HandleInitialize(ctx, in)
	list, ok := out.Result.(*s3.ListObjectsV2Output)
	if err != nil || !ok || list.EncodingType != types.EncodingTypeUrl {
		return out, meta, err
	}
	for i := range list.Contents {
		list.Contents[i].Key = decoded(list.Contents[i].Key)
	}
	for i := range list.CommonPrefixes {
		list.CommonPrefixes[i].Prefix = decoded(list.CommonPrefixes[i].Prefix)
	}
	return out, meta, nil
})

// decoded is a key that was encoded as a form's values are; one that was not is
// left as it is.
func decoded(key *string) *string {
	plain, err := url.QueryUnescape(aws.ToString(key))
	if err != nil {
		return key
	}
	return &plain
}
