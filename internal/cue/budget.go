package cue

import (
	"context"
	"fmt"

	"unstuck/internal/db"
)

// How much one answer carries. A payload may have 1 MiB and an outcome more, so that whatever holds many of them would otherwise
// fill the server's memory.
//
// An answer that hands out work (a batch of claims, a list of what can be claimed) takes in so many executions that their payloads
// stay within answerMost, but always one. Lists leave out what is large: a payload or an outcome of more than 8 KiB, which an
// execution or cue names in `omitted`, and all but the first 1,000 characters of an error message or a description. So a page has
// as many things as was asked for, which paging by offset relies on, and 100 of them stay near answerMost too. What was left out is
// in the answer that shows the one execution or cue.
const answerMost = 2 << 20 // bytes

// Names of what a list may leave out.
const (
	omitPayload  = "payload"
	omitOutcome  = "outcome"
	omitHandlers = "handlers"
)

// takes says that the call has room for this work.
func (cl *claim) takes(w *work) bool {
	return len(cl.taken) < cl.most && (len(cl.taken) == 0 || cl.bytes+w.size <= answerMost)
}

// fetch reads the payloads of what a call got, where they were too large to be read on suspicion. It runs after the claim, so that
// the transaction of many calls never holds them all. What was deleted since is left out.
func (c *Cues) fetch(ctx context.Context, cl *claim) error {
	var ids []string
	for _, l := range cl.taken {
		if l.small == nil {
			ids = append(ids, l.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return c.DB.View(ctx, func(tx *db.Tx) error {
		type row struct{ id, payload string }
		rows, err := tx.Query(sqlPayloads, ids)
		found, err := scanAll(rows, err, func(r *row, s scanner) error { return s.Scan(&r.id, &r.payload) })
		if err != nil {
			return fmt.Errorf("read the payloads of claimed executions: %w", err)
		}
		large := make(map[string]*string, len(found))
		for i := range found {
			large[found[i].id] = &found[i].payload
		}
		taken := make([]lease, 0, len(cl.taken))
		for _, l := range cl.taken {
			if l.small == nil {
				l.small = large[l.id]
			}
			if l.small != nil {
				taken = append(taken, l)
			}
		}
		cl.taken = taken
		return nil
	})
}
