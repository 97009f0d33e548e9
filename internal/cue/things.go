package cue

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"unstuck/internal/access"
	"unstuck/internal/db"
)

// What access asks about the things that keys are for: *Cues implements access.Things.
var _ access.Things = (*Cues)(nil)

// CueExists says whether a workspace has a cue of this id.
func (c *Cues) CueExists(tx *db.Tx, workspace, id string) (bool, error) {
	_, found, err := cueName(tx, workspace, id)
	return found, err
}

// CueName is the name of a cue; "" when the workspace has none of this id.
func (c *Cues) CueName(tx *db.Tx, workspace, id string) (string, error) {
	name, _, err := cueName(tx, workspace, id)
	return name, err
}

func cueName(tx *db.Tx, workspace, id string) (name string, found bool, err error) {
	err = tx.Row(sqlCueNameByID, workspace, id).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read the name of cue %s: %w", id, err)
	}
	return name, true, nil
}

// FindCue finds a cue by its id or its name, by the id first; both are "" when the workspace has none.
func (c *Cues) FindCue(tx *db.Tx, workspace, cue string) (id, name string, err error) {
	err = tx.Row(sqlCueFind, workspace, cue).Scan(&id, &name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("look for a cue: %w", err)
	}
	return id, name, nil
}

// CountCues counts the cues of a workspace that match at least one pattern of every list (nil: all of them).
func (c *Cues) CountCues(tx *db.Tx, workspace string, filter [][]access.Pattern) (n int64, err error) {
	w := &where{}
	w.and("c.workspace_id = ?", workspace)
	w.seen(slices.DeleteFunc(slices.Clone(filter), matchesAll))
	if err := tx.Row(sqlCueCount+w.String(), w.args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the cues of a workspace: %w", err)
	}
	return n, nil
}

// matchesAll says that a list of patterns lets every cue pass.
func matchesAll(list []access.Pattern) bool {
	return slices.ContainsFunc(list, func(p access.Pattern) bool { return p.Any })
}
