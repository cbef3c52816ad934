package resolve

import (
	"context"
	"path"
	"slices"
	"strings"
)

// FileInfo is mlflow.entities.FileInfo.
type FileInfo struct {
	Path  string `json:"path"`
	IsDir bool   `json:"is_dir"`
	Size  *int64 `json:"file_size,omitempty"` // bytes, of a file
}

// FileInfos is what mlflow.artifacts.list_artifacts gives for what was found, in its order:
// what a run holds, and behind it what its logged model does, so that a name which both
// have is given twice; nothing for a file. left tells that a store holds what no path can
// name, which MLflow may list.
func (r *Resolver) FileInfos(ctx context.Context, f Found) (infos []FileInfo, left bool, err error) {
	infos = []FileInfo{}
	for _, f := range f.Parted() {
		if f.Dir == nil {
			continue
		}
		for _, p := range f.Dir.Parts {
			ls, err := r.listings.list(ctx, p, f.Dir.Final)
			if err != nil {
				return nil, false, err
			}
			left = left || len(ls.left) > 0
			for _, e := range ls.entries {
				info := FileInfo{Path: path.Join(f.Prefix, e.Name), IsDir: e.IsDir}
				if !e.IsDir {
					info.Size = &e.Size
				}
				infos = append(infos, info)
			}
		}
		for _, it := range f.Dir.Texts {
			infos = append(infos, FileInfo{Path: path.Join(f.Prefix, it.Name), Size: &it.Size})
		}
		models := make([]FileInfo, 0, len(f.Dir.Mounts))
		for _, m := range f.Dir.Mounts {
			models = append(models, FileInfo{Path: path.Join(f.Prefix, m.Name), IsDir: true})
		}
		slices.SortStableFunc(models, func(a, b FileInfo) int { return strings.Compare(a.Path, b.Path) })
		infos = append(infos, models...)
	}
	return infos, left, nil
}
