"""Puts a file into an object store with the store's own client.

usage: objects.py gs|wasbs BUCKET KEY FILE [CONTENT_ENCODING]

A content encoding is said of the file, which is not changed; GCS alone takes one.
"""

import os
import sys


def main():
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
