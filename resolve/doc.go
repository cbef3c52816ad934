// Package resolve turns MLflow's names into where their bytes are.
//
// A [Resolver] knows a tracking store, a registry and the artifact stores that
// they name. It answers with an [Origin]: a directory of artifacts, perhaps the
// union of several places, that [Resolver.List] lists and [Resolver.Lookup]
// looks into. What it learns it remembers for a while: see [Options].
//
// What a name means is what the MLflow client's download_artifacts takes it to
// mean (mlflow.store.artifact.runs_artifact_repo and models_artifact_repo):
// a run's root is the union of its own artifacts and, as directories of their
// names, of its logged models; a model's root that holds an MLmodel has a file
// registered_model_meta that no store holds.
package resolve
