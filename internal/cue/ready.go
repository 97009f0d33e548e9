package cue

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// fewCues is how many cues a restricted key may see for its work to be looked up cue by cue, each by its own index. A key that
// sees more finds its work soon when all work of the workspace is read from the oldest on.
const fewCues = 32

// readyQuery says what work a call would take. Calls with equal queries find the same.
type readyQuery struct {
	workspace  string
	task       string
	anyTask    bool
	several    string // several tasks, joined by NUL, which no task has: any of them; "" when task and anyTask say it
	agent      string // "" for any
	restricted string // id of the key, when its restrictions hide some cues
}

func readyQueryOf(caller *access.Caller, tasks []string, agent *string) readyQuery {
	q := readyQuery{workspace: caller.Workspace(), anyTask: len(tasks) == 0}
	switch tasks = slices.Compact(slices.Sorted(slices.Values(tasks))); len(tasks) {
	case 0:
	case 1:
		q.task = tasks[0]
	default:
		q.several = strings.Join(tasks, "\x00")
	}
	if agent != nil {
		q.agent = *agent
	}
	if caller.CueFilter() != nil {
		q.restricted = caller.KeyID()
	}
	return q
}

// work is an execution as claims look at it.
type work struct {
	id, workspace, cueID, cueName string
	status                        string
	task                          string
	size                          int     // of the payload, in bytes
	small                         *string // the payload, unless it has more than 2 KiB: it is read along with work that is only looked at
	scheduledFor                  op.Time
	attempts                      int64
	criteria                      string // JSON list; "" for none
}

func (w *work) scan(r scanner) error {
	return r.Scan(&w.id, &w.workspace, &w.cueID, &w.cueName, &w.status, &w.task, &w.size, &w.small, &w.scheduledFor, &w.attempts, &w.criteria)
}

// ready says that a worker may take it.
func (w *work) ready(now op.Time) bool {
	return (w.status == statusPending || w.status == statusRetryReady) && w.scheduledFor <= now
}

// find returns up to `most` executions that are due and free, oldest first.
func (q readyQuery) find(tx *db.Tx, caller *access.Caller, now op.Time, most int) ([]work, error) {
	if q.several != "" {
		return q.ofTasks(tx, caller, now, most)
	}
	if q.restricted == "" {
		return q.walk(tx, nil, now, most)
	}
	found, err := q.ofVisible(tx, caller, now, most)
	return found[:min(len(found), most)], err
}

// ofTasks finds the oldest work of several tasks, each by the index that has it in order.
func (q readyQuery) ofTasks(tx *db.Tx, caller *access.Caller, now op.Time, most int) ([]work, error) {
	var found []work
	for _, task := range strings.Split(q.several, "\x00") {
		one := q
		one.task, one.several = task, ""
		more, err := one.find(tx, caller, now, most)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	slices.SortFunc(found, older)
	return found[:min(len(found), most)], nil
}

// ofVisible returns executions of the cues that a restricted caller sees, oldest first: the oldest `most` of them, and perhaps
// more.
func (q readyQuery) ofVisible(tx *db.Tx, caller *access.Caller, now op.Time, most int) ([]work, error) {
	cues, few, err := visibleCues(tx, caller)
	if err != nil {
		return nil, err
	}
	if !few {
		return q.walk(tx, caller.CueFilter(), now, most)
	}
	var found []work
	for _, id := range cues {
		w := &db.Where{}
		w.And("e.cue_id = ?", id)
		more, err := q.run(tx, w, now, most)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	slices.SortFunc(found, older)
	return found, nil
}

// walk reads the workspace's work from the oldest on.
func (q readyQuery) walk(tx *db.Tx, filter [][]access.Pattern, now op.Time, most int) ([]work, error) {
	w := &db.Where{}
	w.And("e.workspace_id = ?", q.workspace)
	access.OnlyCues(w, filter)
	return q.run(tx, w, now, most)
}

func (q readyQuery) run(tx *db.Tx, w *db.Where, now op.Time, most int) ([]work, error) {
	text, args := q.query(w, now, most)
	rows, err := tx.Query(text, args...)
	return scanAll(rows, err, (*work).scan)
}

// query completes a condition that says where to look.
func (q readyQuery) query(w *db.Where, now op.Time, most int) (text string, args []any) {
	if !q.anyTask {
		w.And("e.task = ?", q.task)
	}
	if q.agent != "" {
		w.And("e.agent = ? AND e.agent <> ''", q.agent)
	}
	w.And(readyE+" AND e.scheduled_for <= ?", now)
	limit := w.Arg(most)
	return sqlReady + w.String() + sqlReadyOrder + limit, w.Args
}

// older sorts work by its due time.
func older(a, b work) int {
	return cmp.Or(cmp.Compare(a.scheduledFor, b.scheduledFor), cmp.Compare(a.id, b.id))
}

// visibleCues lists the cues that a restricted caller sees, if they are few.
func visibleCues(tx *db.Tx, caller *access.Caller) (ids []string, few bool, err error) {
	type row struct{ id, name string }
	p := access.SortPatterns(caller.CueFilter()[0]) // whatever the other lists say, a cue must match this one
	rows, err := tx.Query(sqlCuesMatching, caller.Workspace(), p.IDs, p.Names, p.Low, p.High, fewCues+1)
	found, err := scanAll(rows, err, func(r *row, s scanner) error { return s.Scan(&r.id, &r.name) })
	if err != nil {
		return nil, false, fmt.Errorf("look for the cues of a restricted key: %w", err)
	}
	for _, r := range found { // several patterns may match one cue
		if caller.SeesCue(r.id, r.name) && !slices.Contains(ids, r.id) {
			ids = append(ids, r.id)
		}
	}
	return ids, len(found) <= fewCues, nil
}

// tasksMost is how many tasks take turns in one list.
const tasksMost = 1000

// inTurn returns up to `most` executions that are due and free such that the tasks take turns: the oldest of every task, then
// the second oldest of every task, and so on. So no task hides another, however long its backlog. Of a key that is restricted
// to many cues only the oldest ten times `most` executions take part.
func (q readyQuery) inTurn(tx *db.Tx, caller *access.Caller, now op.Time, most int) ([]work, error) {
	if q.restricted != "" {
		found, err := q.ofVisible(tx, caller, now, 10*most)
		return takeTurns(found, most), err
	}
	tasks, err := q.tasks(tx, now)
	if err != nil {
		return nil, err
	}
	tasks = tasks[:min(len(tasks), most)]
	each := most - len(tasks) + 1 // enough even if every other task has but one
	var found []work
	for _, task := range tasks {
		q.task, q.anyTask = task, false
		more, err := q.walk(tx, nil, now, each)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	slices.SortFunc(found, older)
	return takeTurns(found, most), nil
}

// takeTurns reorders work, which is sorted by age, so that the tasks take turns, and cuts it.
func takeTurns(found []work, most int) []work {
	places := make(map[string]int, len(found)) // by execution: how many of its task come before it
	seen := map[string]int{}
	for _, w := range found {
		places[w.id] = seen[w.task]
		seen[w.task]++
	}
	slices.SortStableFunc(found, func(a, b work) int { return cmp.Compare(places[a.id], places[b.id]) })
	return found[:min(len(found), most)]
}

// tasks lists the tasks that have work due, those with the oldest first.
func (q readyQuery) tasks(tx *db.Tx, now op.Time) ([]string, error) {
	type head struct {
		task string
		due  *op.Time
	}
	rows, err := tx.Query(sqlReadyTasks, q.workspace, tasksMost)
	heads, err := scanAll(rows, err, func(h *head, s scanner) error { return s.Scan(&h.task, &h.due) })
	if err != nil {
		return nil, fmt.Errorf("list the tasks that have work: %w", err)
	}
	heads = slices.DeleteFunc(heads, func(h head) bool { return h.due == nil || *h.due > now })
	slices.SortFunc(heads, func(a, b head) int { return cmp.Or(cmp.Compare(*a.due, *b.due), cmp.Compare(a.task, b.task)) })
	tasks := make([]string, len(heads))
	for i, h := range heads {
		tasks[i] = h.task
	}
	return tasks, nil
}

// payload is the payload, read now if it was too large to be read on suspicion.
func (w *work) payload(tx *db.Tx) (string, error) {
	if w.small != nil {
		return *w.small, nil
	}
	var p string
	if err := tx.Row(sqlPayload, w.id).Scan(&p); err != nil {
		return "", fmt.Errorf("read the payload of execution %s: %w", w.id, err)
	}
	return p, nil
}
