// Package resolve turns MLflow's names into where their bytes are.
//
// A [Resolver] knows a tracking store, a registry and the artifact stores that
// they name. It answers with a [Dir]: a directory of artifacts, perhaps the
// union of several places, that [Resolver.List] lists and [Resolver.Lookup]
// looks into. What it learns it remembers for a while: see [Options].
//
// What a name means is what the MLflow client's download_artifacts takes it to
// mean (mlflow.store.artifact.runs_artifact_repo and models_artifact_repo):
// a run's root is the union of its own artifacts and, as directories of their
// names, of its logged models; a model's root that holds an MLmodel has a file
// registered_model_meta that no store holds.
//
// # Terms
//
// Each word means one thing here, in meta, artifact, answers and rest:
//
//   - URI: how a user, or a server, names artifacts. One with a name of MLflow's
//     (runs:/, models:/) is a [URI]; any other is a storage URI.
//   - place: a directory at a storage URI, with the door to it.
//   - door: what a tracking server knows a directory as: a run, or a logged model.
//   - managed: files of a version that its registry keeps itself (Unity Catalog,
//     Databricks). They are opened with what it lends, or by URLs that it signs, and
//     never with the client's own keys.
//   - lent: credentials for one place that a registry gives for a while.
//   - root: the directory that a name leads to, above any path in the URI.
//   - [Dir]: a directory of artifacts. It is made of parts and mounts.
//   - [Part]: a directory in one store, of those that are shown as one.
//   - [Mount]: a directory that stands in another under a name of its own, as a
//     logged model does in its run.
//   - [Item]: one name in a Dir: a directory, a file in a store, or a file whose
//     content is known.
//   - store: what answers questions: of metadata (meta.Store), or of artifacts
//     (artifact.Store).
//   - route: one way to the bytes of a place, by one store: direct, presigned, or
//     through the tracking server.
//   - router: what chooses among the routes to a place, by what answers.
//   - listing: what a store says is in a directory. Files are known by it: their
//     size, and their validator.
//   - validator: what tells one content of a file from another: an ETag, a
//     generation, a time of modification.
//   - final: nothing is written any more to what MLflow calls so: a run that has
//     ended, a model that is ready. It is remembered longer.
//   - answer: what a server said to a question, "there is none" included. A silence, a
//     refused connection and a 5xx are none; the last answer is given then.
package resolve
