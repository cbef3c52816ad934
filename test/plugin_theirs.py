"""Another package's repository, and its headers, as entry points or registered by hand."""

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider


class Tenant(RequestHeaderProvider):
    def in_context(self):
        return True

    def request_headers(self):
        return {"X-Tenant": "a"}


class Others(ArtifactRepository):
    """Another package's repository: what it gives lies nowhere else."""

    def log_artifact(self, local_file, artifact_path=None):
        raise NotImplementedError

    log_artifacts = log_artifact

    def list_artifacts(self, path=None):
        return []

    def _download_file(self, remote_file_path, local_path):
        with open(local_path, "w") as f:
            f.write("by another package")
