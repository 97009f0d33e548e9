package cue

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// How long after its last heartbeat a worker counts as active, then as stale (CueAPI wire contract 2.6). Then it is dead.
const (
	workerActive = 180 * time.Second
	workerStale  = 900 * time.Second
	workersMost  = 1000     // workers that a list shows, those heard of last
	handlersMost = 16 << 10 // bytes of JSON that the handlers of one worker may take
)

type workerHeartbeatInput struct {
	WorkerID string           `json:"worker_id" max:"255"`
	Handlers op.Opt[[]string] `json:"handlers" max:"1000" doc:"the tasks that it can do; up to 16 KiB together"`
}

type workerHeartbeatOutput struct {
	Acknowledged bool    `json:"acknowledged"`
	ServerTime   op.Time `json:"server_time"`
}

// workerHeartbeat notes that a worker is there. It also renews the leases that this key and worker took without a token: their
// client sends no heartbeats of executions (CueAPI wire contract 3.7).
func (c *Cues) workerHeartbeat(ctx context.Context, in workerHeartbeatInput) (out workerHeartbeatOutput, err error) {
	caller := c.caller(ctx)
	if err := caller.CheckWorker(in.WorkerID); err != nil {
		return out, err
	}
	var handlers *string
	if in.Handlers.Set {
		handlers = ptr(string(op.Marshal(append([]string{}, in.Handlers.Val...))))
		if len(*handlers) > handlersMost {
			return out, op.Invalid("body.handlers", "Value error, the names of the handlers take %d bytes together and may take %d: announce fewer or shorter ones", len(*handlers), handlersMost)
		}
	}
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		now := c.now()
		out = workerHeartbeatOutput{Acknowledged: true, ServerTime: now}
		if _, err := tx.Exec(sqlWorkerSeen, caller.Workspace(), in.WorkerID, caller.KeyID(), handlers, now); err != nil {
			return fmt.Errorf("note the heartbeat of a worker: %w", err)
		}
		_, err := tx.Exec(sqlBareRenew, caller.KeyID(), in.WorkerID, now, c.leaseEnd(now), c.BareLeaseMax.Microseconds())
		if err != nil {
			return fmt.Errorf("renew the leases of a worker: %w", err)
		}
		return nil
	})
	return out, err
}

type workerObject struct {
	WorkerID        string   `json:"worker_id"`
	LastHeartbeat   op.Time  `json:"last_heartbeat"`
	SecondsSince    int64    `json:"seconds_since_heartbeat"`
	HeartbeatStatus string   `json:"heartbeat_status" doc:"active for 180 s, stale until 900 s, then dead"`
	Handlers        []string `json:"handlers" doc:"null when it did not say, or when omitted"`
	RegisteredSince op.Time  `json:"registered_since"`
	KeyID           string   `json:"key_id" doc:"of its last heartbeat"`
	Omitted         []string `json:"omitted,omitempty" doc:"handlers: left out, because those of the workers before it take 2 MiB"`
}

// scan reads a row of sqlWorkers, with its handlers while there is room for so many bytes.
func (w *workerObject) scan(r scanner, room *int) error {
	var handlers *string
	if err := r.Scan(&w.WorkerID, &w.KeyID, &handlers, &w.LastHeartbeat, &w.RegisteredSince); err != nil || handlers == nil {
		return err
	}
	if *room -= len(*handlers); *room < 0 {
		w.Omitted = []string{omitHandlers}
		return nil
	}
	return json.Unmarshal([]byte(*handlers), &w.Handlers)
}

type workerList struct {
	Workers []workerObject `json:"workers"`
}

// listWorkers shows the workers of the workspace, the one heard of last first.
func (c *Cues) listWorkers(ctx context.Context, _ struct{}) (out workerList, err error) {
	now := c.now()
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(sqlWorkers, c.caller(ctx).Workspace(), workersMost)
		room := answerMost
		list, err := scanAll(rows, err, func(w *workerObject, r scanner) error { return w.scan(r, &room) })
		if err != nil {
			return fmt.Errorf("list workers: %w", err)
		}
		for i := range list {
			w := &list[i]
			since := max(time.Duration(now-w.LastHeartbeat)*time.Microsecond, 0)
			w.SecondsSince, w.HeartbeatStatus = int64(since/time.Second), workerState(since)
		}
		out.Workers = append([]workerObject{}, list...)
		return nil
	})
	return out, err
}

func workerState(since time.Duration) string {
	switch {
	case since < workerActive:
		return "active"
	case since < workerStale:
		return "stale"
	}
	return "dead"
}

type workerDeleteInput struct {
	WorkerID string `json:"worker_id"`
}

// deleteWorker forgets a worker. What it holds stays with it until its leases end.
func (c *Cues) deleteWorker(ctx context.Context, in workerDeleteInput) (op.None, error) {
	caller := c.caller(ctx)
	if err := caller.CheckWorker(in.WorkerID); err != nil {
		return op.None{}, err
	}
	return op.None{}, c.DB.Update(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(sqlWorkerDelete, caller.Workspace(), in.WorkerID)
		if err != nil {
			return fmt.Errorf("delete a worker: %w", err)
		}
		if n == 0 {
			return WorkerNotFound.Msg("Worker not found")
		}
		return access.Record(tx, access.Event{Object: "worker", ID: in.WorkerID, Name: in.WorkerID})
	})
}
