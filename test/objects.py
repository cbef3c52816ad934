"""Puts a file, or many objects, into an object store with the store's own client.

usage: objects.py gs|wasbs BUCKET KEY FILE [CONTENT_ENCODING]
       objects.py gs|wasbs BUCKET < {KEY: CONTENT in base64, …}

A content encoding is said of the file, which is not changed; GCS alone takes one;
of many, it is gzip for those that are named packed.gz. Of many, those that the store
refuses are printed as a list.
"""

import base64
import json
import os
import sys


def many(store, bucket, objects):
    """Puts objects, those without content last, and gives the keys that are refused:
    of a file and a directory of one name, for one."""
    if store == "gs":
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        to = storage.Client(project="x", credentials=AnonymousCredentials(), client_options={"api_endpoint": os.environ["STORAGE_EMULATOR_HOST"]}).bucket(bucket)

        def put(key, content):
            blob = to.blob(key)
            blob.content_encoding = "gzip" if key.endswith("/packed.gz") else None
            blob.upload_from_string(content, retry=None)

    else:
        from azure.storage.blob import BlobServiceClient

        to = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])

        def put(key, content):
            to.get_blob_client(bucket, key).upload_blob(content, overwrite=True)

    refused = []
    for key, content in sorted(objects.items(), key=lambda o: not o[1]):
        try:
            put(key, base64.b64decode(content))
        except Exception:
            refused.append(key)
    return refused


def main():
    if len(sys.argv) == 3:
        print(json.dumps(many(*sys.argv[1:], json.load(sys.stdin))))
        return
    store, bucket, key, file = sys.argv[1:5]
    if store == "gs":
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        client = storage.Client(project="x", credentials=AnonymousCredentials(), client_options={"api_endpoint": os.environ["STORAGE_EMULATOR_HOST"]})
        blob = client.bucket(bucket).blob(key)
        blob.content_encoding = sys.argv[5] if len(sys.argv) > 5 else None
        blob.upload_from_filename(file)
    else:
        from azure.storage.blob import BlobServiceClient

        client = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
        with open(file, "rb") as f:
            client.get_blob_client(bucket, key).upload_blob(f, overwrite=True)


if __name__ == "__main__":
    main()
