package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of the operations on workspaces.
var (
	WorkspaceNotFound = op.Code{Status: 404, Name: "workspace_not_found", Doc: "There is no such workspace, or you are not a member of it."}
	SelfHostedOnly    = op.Code{Status: 403, Name: "self_hosted_only", Doc: "Workspaces are made from a workspace on the plan self-hosted. Ask whoever runs the server."}
	DuplicateSlug     = op.Code{Status: 409, Name: "duplicate_slug", Doc: "Another workspace has this slug. Choose another."}
)

const planSelfHosted = "self-hosted"

// plans are what workspaces may be put on: cues, executions a month, calls a minute (0: no limit), living keys, members. The first three
// are CueAPI's; the last two keep an open sign-up from filling a server.
var plans = [...]Plan{
	{"free", 10, 300, 60, 100, 100},
	{"pro", 100, 5_000, 200, 1_000, 1_000},
	{"scale", 500, 50_000, 500, 10_000, 10_000},
	{planSelfHosted, noCap, noCap, 6_000, noCap, noCap},
}

func planOf(name string) (Plan, bool) {
	for _, p := range plans {
		if p.Name == name {
			return p, true
		}
	}
	return Plan{}, false
}

// Workspace is a tenant as an answer shows it.
type Workspace struct {
	ID             string  `json:"id"`
	Name           string  `json:"name"`
	Slug           string  `json:"slug"`
	Plan           string  `json:"plan"`
	CueLimit       int64   `json:"active_cue_limit" doc:"1000000000: no cap"`
	ExecutionLimit int64   `json:"monthly_execution_limit" doc:"1000000000: no cap"`
	RateLimit      int64   `json:"rate_limit_per_minute" doc:"calls a minute by all keys together; 0: no limit"`
	CreatedAt      op.Time `json:"created_at"`
	UpdatedAt      op.Time `json:"updated_at"`
}

func (w workspaceRow) show() Workspace {
	return Workspace{w.id, w.name, w.slug, w.plan, w.cueLimit, w.executionLimit, w.rateLimit, op.Time(w.created), op.Time(w.updated)}
}

func (a *Access) getWorkspace(ctx context.Context, _ struct{}) (out Workspace, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, From(ctx).Workspace())
		out = w.show()
		return err
	})
	return out, err
}

// Workspaces are those that the caller's member made with keys of his own, beginning with the one he was first in: see person.
type Workspaces struct {
	Workspaces []Workspace `json:"workspaces"`
}

func (a *Access) listWorkspaces(ctx context.Context, _ struct{}) (out Workspaces, err error) {
	c := From(ctx)
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out.Workspaces = []Workspace{}
		me, err := readKey(tx, c.Workspace(), c.KeyID())
		if err != nil {
			return err
		}
		// An integration key is of one workspace, and a key that was handed over does not prove who calls.
		if me.kind != personal.String() || c.grant.handed {
			w, err := readWorkspace(tx, c.Workspace())
			out.Workspaces = append(out.Workspaces, w.show())
			return err
		}
		return each(tx, sqlWorkspacesOf, []any{me.user}, func(r *sql.Rows) error {
			w := workspaceRow{}
			err := w.scan(r)
			out.Workspaces = append(out.Workspaces, w.show())
			return err
		})
	})
	return out, err
}

type workspaceCreate struct {
	Name string         `json:"name" min:"1" max:"100" format:"line" doc:"what people call it"`
	Slug op.Opt[string] `json:"slug" min:"1" max:"60" re:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" doc:"short form for addresses; made from the name by default"`
}

// NewWorkspace is a workspace with a personal key of its first admin, shown this once.
type NewWorkspace struct {
	Workspace
	Secret SecretText `json:"key" doc:"a personal key of yours in the new workspace, shown this once"`
}

func (a *Access) createWorkspace(ctx context.Context, in workspaceCreate) (out NewWorkspace, err error) {
	c := From(ctx)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		caller, err := r.callerRights(c)
		if err != nil {
			return err
		}
		if err := c.wants(caller, 0, "make a workspace"); err != nil {
			return err
		}
		mine, err := a.Plan(tx, c.Workspace())
		if err != nil {
			return err
		}
		if mine.Name != planSelfHosted {
			return SelfHostedOnly.Msg("A workspace on the plan %s cannot make others.", mine.Name)
		}
		plan, _ := planOf(planSelfHosted)
		w, err := a.found(tx, in.Name, in.Slug.Val, plan, caller.key.user)
		if err != nil {
			return err
		}
		key, err := r.insert(a.personalRow(w.id, caller.key.user, "first key"))
		if err != nil {
			return err
		}
		out = NewWorkspace{w.show(), SecretText(key.Secret)}
		e := Event{Object: "workspace", ID: w.id, Name: w.name, Detail: map[string]any{"key": SecretText(key.Secret).String()}}
		return errors.Join(Record(tx, e), c.record(tx, w.id, e)) // the new one's log begins with who made it
	})
	return out, err
}

// found makes a workspace with its first admin, as yet without a key.
func (a *Access) found(tx *db.Tx, name, slug string, plan Plan, admin string) (workspaceRow, error) {
	slug, err := freeSlug(tx, name, slug)
	if err != nil {
		return workspaceRow{}, err
	}
	now := a.now()
	w := workspaceRow{
		id: newID("ws_"), name: name, slug: slug, plan: plan.Name, cueLimit: plan.CueLimit, executionLimit: plan.ExecutionLimit, rateLimit: plan.RatePerMinute,
		webhookSecret: a.sealer.seal(newWebhookSecret()), alertSecret: a.sealer.seal(newAlertSecret()), rev: 1, created: now, updated: now,
	}
	if err := addWorkspace(tx, w); err != nil {
		return w, err
	}
	return w, addMembership(tx, memberRow{w.id, admin, RoleAdmin, 1, now})
}

// freeSlug is a slug that no other workspace has: the one asked for, or one made from the name.
func freeSlug(tx *db.Tx, name, asked string) (string, error) {
	slug := asked
	if asked == "" {
		slug = slugOf(name)
	}
	for {
		var other string
		err := tx.Row(sqlWorkspaceOfSlug, slug).Scan(&other)
		switch {
		case isNone(err):
			return slug, nil
		case err != nil:
			return "", fmt.Errorf("look for a slug: %w", err)
		case asked != "":
			return "", DuplicateSlug.Msg("Another workspace has the slug %s.", slug)
		}
		slug = slugOf(name) + "-" + randomHex(2)
	}
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

func slugOf(name string) string {
	s := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if len(s) > 55 {
		s = strings.Trim(s[:55], "-")
	}
	if s == "" {
		return "workspace"
	}
	return s
}

type workspaceUpdate struct {
	Name      op.Opt[string] `json:"name" min:"1" max:"100" format:"line"`
	Slug      op.Opt[string] `json:"slug" min:"1" max:"60" re:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"`
	RateLimit op.Opt[int64]  `json:"rate_limit_per_minute" min:"0" max:"1000000" doc:"calls a minute by all keys together; 0: no limit. Only on plan self-hosted"`
}

func (a *Access) updateWorkspace(ctx context.Context, in workspaceUpdate) (out Workspace, err error) {
	c := From(ctx)
	err = a.update(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, c.Workspace())
		if err != nil {
			return err
		}
		if in.RateLimit.Set && w.plan != planSelfHosted {
			return op.Invalid("body.rate_limit_per_minute", "The plan %s sets it", w.plan)
		}
		was := w.show()
		w.name, w.slug, w.rateLimit = in.Name.Or(w.name), in.Slug.Or(w.slug), in.RateLimit.Or(w.rateLimit)
		if out = w.show(); out == was {
			Unchanged(tx)
			return nil
		}
		if err := a.setWorkspace(tx, &w); err != nil {
			return err
		}
		out = w.show()
		return Record(tx, Event{Object: "workspace", ID: w.id, Name: w.name, Detail: change{was, out}})
	})
	return out, err
}

// SetPlan puts a workspace, by id or slug, on a plan. It is what `unstuck workspaces set-plan` does on the server itself.
func (a *Access) SetPlan(ctx context.Context, workspace, plan string) (Workspace, error) {
	p, ok := planOf(plan)
	if !ok {
		return Workspace{}, op.Invalid("plan", "There is no plan %q; there are free, pro, scale and self-hosted", plan)
	}
	var out Workspace
	err := a.update(ctx, func(tx *db.Tx) error {
		id := workspace
		if err := tx.Row(sqlWorkspaceOfSlug, workspace).Scan(&id); err != nil && !isNone(err) {
			return err
		}
		w, err := readWorkspace(tx, id)
		if isNone(err) {
			return WorkspaceNotFound.Msg("There is no workspace %s.", workspace)
		}
		if err != nil {
			return err
		}
		was := w.plan
		w.plan, w.cueLimit, w.executionLimit, w.rateLimit = p.Name, p.CueLimit, p.ExecutionLimit, p.RatePerMinute
		if err := a.setWorkspace(tx, &w); err != nil {
			return err
		}
		out = w.show()
		return a.append(tx, w.id, a.serverRow("workspace.set_plan", "workspace", w.id, w.name, change{was, plan}))
	})
	return out, err
}
