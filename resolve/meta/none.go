package meta

import (
	"context"
	"errors"
)

// noTracking is the other half of a registry that is one alone.
type noTracking struct {
	Tracking // nil: nothing but the registry is asked for
}

// noPrompts is the part of a registry that keeps none.
type noPrompts struct{}

func (noPrompts) SearchPrompts(context.Context, string) (Page[RegisteredModel], error) {
	return Page[RegisteredModel]{}, nil
}
func (noPrompts) Prompt(_ context.Context, name, _ string) (*Prompt, error) {
	return nil, notFound("prompt", name)
}
func (noPrompts) SearchPromptVersions(context.Context, string, string) (Page[Version], error) {
	return Page[Version]{}, nil
}

// none is a registry that can't be used: each question is answered with the
// reason, which is an errors.ErrUnsupported.
type none struct {
	Store // nil: nothing but a registry is asked for
	why   error
}

// NoRegistry makes a registry of the reason why there is none, and gives the error that
// each question is answered with.
func NoRegistry(why error) (Store, error) {
	n := none{why: &unusable{why}}
	return n, n.why
}

var _ Store = none{}

// unusable is why, in words alone: a file of the registry's that is not there does not
// mean that what was asked for is not.
type unusable struct{ error }

func (u *unusable) Is(target error) bool { return target == errors.ErrUnsupported }

func (n none) RegisteredModel(context.Context, string) (*RegisteredModel, error) { return nil, n.why }
func (n none) SearchRegisteredModels(context.Context, string) (Page[RegisteredModel], error) {
	return Page[RegisteredModel]{}, n.why
}
func (n none) Version(context.Context, string, string) (*Version, error) { return nil, n.why }
func (n none) SearchVersions(context.Context, string, string) (Page[Version], error) {
	return Page[Version]{}, n.why
}
func (n none) Remote() bool { return false }
func (n none) SearchPrompts(context.Context, string) (Page[RegisteredModel], error) {
	return Page[RegisteredModel]{}, n.why
}
func (n none) Prompt(context.Context, string, string) (*Prompt, error) { return nil, n.why }
func (n none) SearchPromptVersions(context.Context, string, string) (Page[Version], error) {
	return Page[Version]{}, n.why
}
func (n none) Tell() []Remark { return nil }
func (n none) Close() error   { return nil }
