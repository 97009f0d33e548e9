package cue

import (
	"database/sql"
	"errors"
	"fmt"

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
	w := &db.Where{}
	w.And("c.workspace_id = ?", workspace)
	access.OnlyCues(w, filter)
	if err := tx.Row(sqlCueCount+w.String(), w.Args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the cues of a workspace: %w", err)
	}
	return n, nil
}
