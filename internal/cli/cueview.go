package cli

import (
	"context"
	"time"
)

type cuePage struct {
	Cues []struct {
		ID      string     `json:"id"`
		Name    string     `json:"name"`
		NextRun *time.Time `json:"next_run"`
	} `json:"cues"`
}

// findExecutions leaves an execution as it was named.
func (d *door) findExecutions(_ context.Context, _ string) ([]match, error) { return nil, nil }
