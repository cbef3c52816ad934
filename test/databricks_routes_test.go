package test

import (
	"fmt"
	"slices"
	"strings"
)

// registry are the routes of both registries of the workspace.
func (w *workspaceFake) registry() []fakeRoute {
	// Some have the tag of MLflow's prompts, which means nothing here.
	tags := func(name string) []any {
		if name == dbxUC {
			return nil
		}
		return []any{map[string]any{"key": "mlflow.prompt.is_prompt", "value": "true"}}
	}
	info := func(name, version string) map[string]any {
		return map[string]any{"tags": tags(name), "name": name, "version": version, "status": "READY", "source": "dbfs:/of/a/run", "run_id": dbxRun, "creation_timestamp": 1700000000000 + len(version), "last_updated_timestamp": 1700000000000}
	}
	const uc = mlflowAPI + "unity-catalog/"
	versions := map[string][]string{dbxUC: {"1", "2"}, dbxOwn: {"1"}}
	known := func(in map[string]any, answer func(name, version string) any) any {
		name, version := field(in, "name"), field(in, "version")
		w.mu.Lock()
		denied := w.denied
		w.mu.Unlock()
		switch {
		case denied:
			return fakeError{403, "PERMISSION_DENIED", "User does not have EXECUTE on Routine or Model '" + name + "'"}
		case !slices.Contains(versions[name], version) && (version != "" || versions[name] == nil):
			return fakeError{404, "RESOURCE_DOES_NOT_EXIST", "Routine or Model '" + name + "' does not exist"}
		}
		return answer(name, version)
	}
	model := func(name string) map[string]any {
		m := map[string]any{"tags": tags(name), "name": name, "creation_timestamp": 1700000000000, "last_updated_timestamp": 1700000000000}
		if name == dbxUC {
			m["aliases"] = []any{map[string]any{"alias": "champion", "version": "2"}}
		}
		return m
	}
	old := func(in map[string]any, answer func() any) any {
		if field(in, "name") != dbxWorkspace || field(in, "version") != "1" && field(in, "version") != "" {
			return missing
		}
		return answer()
	}
	oldVersion := info(dbxWorkspace, "1")
	oldVersion["current_stage"] = "Production"
	return []fakeRoute{
		route("GET", uc+"registered-models/search", func([]string, map[string]any) any {
			all := []any{model(dbxUC), model(dbxOwn)}
			delete(all[0].(map[string]any), "aliases") // of which a search does not tell
			return pageOf("registered_models", all, "")
		}, "max_results", "page_token"),
		route("GET", uc+"registered-models/get", func(_ []string, in map[string]any) any {
			return known(in, func(name, _ string) any { return map[string]any{"registered_model": model(name)} })
		}, "name"),
		route("GET", uc+"registered-models/alias", func(_ []string, in map[string]any) any {
			return known(in, func(name, _ string) any { return map[string]any{"model_version": info(name, "2")} })
		}, "name", "alias"),
		route("GET", uc+"model-versions/get", func(_ []string, in map[string]any) any {
			return known(in, func(name, version string) any { return map[string]any{"model_version": info(name, version)} })
		}, "name", "version"),
		route("GET", uc+"model-versions/search", func(_ []string, in map[string]any) any {
			name := strings.Trim(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(field(in, "filter")), "name")), "= '")
			var all []any
			for _, v := range versions[name] {
				all = append(all, info(name, v))
			}
			return pageOf("model_versions", all, "")
		}, "filter", "max_results", "page_token"),
		route("GET", uc+"model-versions/get-download-uri", func(_ []string, in map[string]any) any {
			return known(in, func(name, version string) any {
				if name == dbxOwn {
					return fakeError{400, "INVALID_PARAMETER_VALUE", "the storage is the workspace's own"}
				}
				return map[string]any{"artifact_uri": "s3://" + bucket + "/" + w.key(rootOfUC(version))}
			})
		}, "name", "version"),
		route("POST", uc+"model-versions/generate-temporary-credentials", func(_ []string, in map[string]any) any {
			return known(in, func(name, version string) any {
				if in["operation"] != "MODEL_VERSION_OPERATION_READ" {
					w.t.Errorf("credentials for %v are asked for", in["operation"])
				}
				if name == dbxOwn {
					return map[string]any{"credentials": map[string]any{"storage_mode": "DEFAULT_STORAGE"}}
				}
				w.mu.Lock()
				k := w.store.lend(w.key(rootOfUC(version)), w.life)
				w.mu.Unlock()
				return map[string]any{"credentials": map[string]any{"aws_temp_credentials": map[string]any{"access_key_id": k.Key, "secret_access_key": k.Secret, "session_token": k.Session}, "expiration_time": k.until.UnixMilli(), "storage_mode": "CUSTOMER_HOSTED"}}
			})
		}, "name", "version", "operation"),
		route("GET", uc+"registered-models:is-databricks-sdk-models-artifact-repository-enabled", func([]string, map[string]any) any { return map[string]any{} }),
		route("GET", mlflowAPI+"registered-models/search", func([]string, map[string]any) any {
			return pageOf("registered_models", []any{map[string]any{"name": dbxWorkspace, "tags": tags(dbxWorkspace), "latest_versions": []any{oldVersion}}}, "")
		}, "max_results", "page_token", "filter", "order_by"),
		route("GET", mlflowAPI+"registered-models/get", func(_ []string, in map[string]any) any {
			return old(in, func() any {
				return map[string]any{"registered_model": map[string]any{"name": dbxWorkspace, "tags": tags(dbxWorkspace), "latest_versions": []any{oldVersion}}}
			})
		}, "name"),
		route("POST", mlflowAPI+"registered-models/get-latest-versions", func(_ []string, in map[string]any) any {
			return old(in, func() any { return pageOf("model_versions", []any{oldVersion}, "") })
		}, "name", "stages"),
		route("GET", mlflowAPI+"model-versions/get", func(_ []string, in map[string]any) any {
			return old(in, func() any { return map[string]any{"model_version": oldVersion} })
		}, "name", "version"),
		route("GET", mlflowAPI+"model-versions/search", func([]string, map[string]any) any { return pageOf("model_versions", []any{oldVersion}, "") }, "filter", "max_results", "page_token", "order_by"),
		route("GET", mlflowAPI+"model-versions/list-artifacts", func(_ []string, in map[string]any) any {
			return old(in, func() any { return listing(rootOfOld("1"), field(in, "path"), in) })
		}, "name", "version", "path", "page_token"),
		route("GET", mlflowAPI+"model-versions/get-signed-download-uri", func(_ []string, in map[string]any) any {
			return old(in, func() any { return w.sign(rootOfOld("1") + "/" + field(in, "path")) })
		}, "name", "version", "path"),
	}
}

// files are the routes of DBFS and of the Files API.
func (w *workspaceFake) files() []fakeRoute {
	// fs are directories of the Files API, each with where its bytes are. Those of the
	// last two are not documented: MLflow's client takes them by default.
	const internal = "/WorkspaceInternal/Mlflow/Artifacts/" + dbxExperiment
	fs := map[string]string{rootOfOwn: rootOfOwn, rootOfVolume: rootOfVolume,
		internal + "/Runs/" + dbxRun + "/artifacts": rootOfRun(), internal + "/LoggedModels/" + dbxModel + "/artifacts": rootOfLogged()}
	dbfs := map[string]string{rootOfDBFS: rootOfDBFS}
	in := func(roots map[string]string, path string, answer func(root, rel string) any) any {
		for root := range roots {
			if path == root {
				return answer(root, "")
			}
			if rel, ok := strings.CutPrefix(path, root+"/"); ok {
				return answer(root, rel)
			}
		}
		return fakeError{404, "NOT_FOUND", "no such path: " + path}
	}
	isDir := func(rel string) bool {
		for name := range dbxFiles {
			if rel == "" || strings.HasPrefix(name, rel+"/") {
				return true
			}
		}
		return false
	}
	entry := func(root string) func(p string, isDir bool, size int) map[string]any {
		return func(p string, isDir bool, size int) map[string]any {
			e := map[string]any{"path": root + "/" + p, "name": p[strings.LastIndexByte(p, '/')+1:], "is_directory": isDir}
			if !isDir {
				e["file_size"], e["last_modified"] = size, 1700000000000
			}
			return e
		}
	}
	return []fakeRoute{
		route("GET", "/api/2.0/fs/directories(/.*)", func(path []string, q map[string]any) any {
			return in(fs, path[0], func(root, rel string) any {
				if !isDir(rel) {
					return fakeError{404, "NOT_FOUND", "no such directory"}
				}
				all, next := entries(root, rel, q, entry(root))
				return pageOf("contents", all, next)
			})
		}, "page_token", "page_size"),
		route("HEAD", "/api/2.0/fs/directories(/.*)", func(path []string, _ map[string]any) any {
			return in(fs, path[0], func(_, rel string) any {
				if !isDir(rel) {
					return fakeError{404, "NOT_FOUND", "no such directory"}
				}
				return map[string]any{}
			})
		}),
		route("HEAD", "/api/2.0/fs/files(/.*)", func(path []string, _ map[string]any) any {
			return in(fs, path[0], func(root, rel string) any { return w.serve(fs[root]+"/"+rel, true) })
		}),
		route("GET", "/api/2.0/fs/files(/.*)", func(path []string, _ map[string]any) any {
			return in(fs, path[0], func(root, rel string) any { return w.serve(fs[root]+"/"+rel, true) })
		}),
		route("POST", "/api/2.0/fs/create-download-url", func(_ []string, q map[string]any) any {
			return in(fs, field(q, "path"), func(root, rel string) any {
				signed, _ := w.sign(fs[root] + "/" + rel).(map[string]any)
				return map[string]any{"url": signed["signed_uri"], "headers": signed["headers"]}
			})
		}, "path", "expire_time"),
		route("GET", "/api/2.0/dbfs/list", func(_ []string, q map[string]any) any {
			return in(dbfs, strings.TrimRight(field(q, "path"), "/"), func(root, rel string) any {
				if _, file := dbxFiles[rel]; !file && !isDir(rel) {
					return missing
				}
				all, _ := entries(root, rel, map[string]any{}, func(p string, isDir bool, size int) map[string]any {
					return map[string]any{"path": root + "/" + p, "is_dir": isDir, "file_size": size, "modification_time": 1700000000000}
				})
				for at := 5; len(all) == at; at += 5 { // it has no pages
					more, _ := entries(root, rel, map[string]any{"page_token": fmt.Sprint(at)}, func(p string, isDir bool, size int) map[string]any {
						return map[string]any{"path": root + "/" + p, "is_dir": isDir, "file_size": size, "modification_time": 1700000000000}
					})
					all = append(all, more...)
				}
				return pageOf("files", all, "")
			})
		}, "path"),
		route("GET", "/api/2.0/dbfs/get-status", func(_ []string, q map[string]any) any {
			return in(dbfs, strings.TrimRight(field(q, "path"), "/"), func(root, rel string) any {
				if _, file := dbxFiles[rel]; !file && !isDir(rel) {
					return missing
				}
				return map[string]any{"path": root + "/" + rel, "is_dir": isDir(rel), "file_size": len(dbxFiles[rel])}
			})
		}, "path"),
		route("GET", "/dbfs(/.*)", func(path []string, _ map[string]any) any {
			return in(dbfs, path[0], func(root, rel string) any { return w.serve(root+"/"+rel, false) })
		}),
	}
}
