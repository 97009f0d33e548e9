package cue

import (
	"slices"

	"unstuck/internal/op"
)

// Operations lists the whole outside of the package. It works on a nil-ish *Cues too: declaring touches nothing.
func (c *Cues) Operations() []*op.Operation {
	return slices.Concat(c.cueOperations(), c.executionOperations(), c.echoOperations(), []*op.Operation{c.usageOperation(), c.liveOperation()})
}

func (c *Cues) cueOperations() []*op.Operation {
	return []*op.Operation{
		op.Define(op.Spec{
			Name: "cue.create", Route: "POST /v1/cues", Status: 201,
			Needs: "cues:write", Effect: op.Write, Narrow: op.ByObject, Open: true, May: "create cues",
			Errors: []op.Code{DuplicateCueName, CueLimitExceeded, InvalidCallbackURL, InvalidPayload, InvalidPayloadSize, InvalidSchedule, InvalidTimezone},
			Doc:    "Create a cue\nA cue says what is to be done and when: at one moment, or again and again by a cron expression in a time zone. Its callback is called, or workers pull its executions.",
		}, c.create),
		op.Define(op.Spec{
			Name: "cue.list", Route: "GET /v1/cues",
			Needs: "cues:read", Effect: op.Read, Narrow: op.ByObject, May: "list cues",
			Doc: "List cues\nNewest first. What is large is left out and named in `omitted`; cue.get shows it.",
		}, c.list),
		op.Define(op.Spec{
			Name: "cue.get", Route: "GET /v1/cues/{id}",
			Needs: "cues:read", Effect: op.Read, Narrow: op.ByObject, May: "see cues",
			Errors: []op.Code{CueNotFound},
			Doc:    "Show a cue\nWith its latest executions and, with preview, its next due times in its own time zone.",
		}, c.get),
		op.Define(op.Spec{
			Name: "cue.update", Route: "PATCH /v1/cues/{id}",
			Needs: "cues:write", Effect: op.Write, Narrow: op.ByObject, Idempotent: true, May: "change cues",
			Errors: []op.Code{CueNotFound, DuplicateCueName, CueLimitExceeded, InvalidCallbackURL, InvalidPayload, InvalidPayloadSize, InvalidSchedule, InvalidTimezone},
			Doc:    "Change a cue\nWhat is not given, or null, stays. What came due before the change fires as it was; the next due time is worked out from now.",
		}, c.update),
		op.Define(op.Spec{
			Name: "cue.pause", Route: "POST /v1/cues/{id}/pause",
			Needs: "cues:write", Effect: op.Write, Narrow: op.ByObject, Idempotent: true, May: "pause cues",
			Errors: []op.Code{CueNotFound, CueLimitExceeded},
			Doc:    "Pause a cue\nDue times during the pause are skipped, and the ledger says so. Executions that exist go on, also with their further attempts; deleting the cue ends them.",
		}, c.pause),
		op.Define(op.Spec{
			Name: "cue.resume", Route: "POST /v1/cues/{id}/resume",
			Needs: "cues:write", Effect: op.Write, Narrow: op.ByObject, Idempotent: true, May: "resume cues",
			Errors: []op.Code{CueNotFound, CueLimitExceeded},
			Doc:    "Resume a cue\nA recurring cue goes on with its next due time. A one-time cue whose time is over fires at once.",
		}, c.resume),
		op.Define(op.Spec{
			Name: "cue.delete", Route: "DELETE /v1/cues/{id}",
			Needs: "cues:write", Effect: op.Destroy, Narrow: op.ByObject, Idempotent: true, May: "delete cues",
			Errors: []op.Code{CueNotFound},
			Doc:    "Delete a cue\nIts executions go with it, also those that a worker has taken; what was not sent yet is not sent. Its ledger stays.",
		}, c.delete),
		op.Define(op.Spec{
			Name: "cue.bulk_delete", Route: "POST /v1/cues/bulk-delete",
			Needs: "cues:write", Effect: op.Destroy, Narrow: op.ByObject, Idempotent: true, Confirm: true, Open: true, May: "delete cues",
			Doc: "Delete many cues\nOne after the other, as each would be deleted alone. What is not there, or hidden from this key, is skipped.",
		}, c.bulkDelete),
		op.Define(op.Spec{
			Name: "cue.fire", Route: "POST /v1/cues/{id}/fire",
			Needs: "cues:fire", Effect: op.Write, Narrow: op.ByObject, Open: true, May: "fire cues",
			Errors: []op.Code{CueNotFound, ExecutionLimitExceeded, InvalidPayload, InvalidPayloadSize, PayloadOverrideMissing, PayloadKeysMissing, FireKeyConflict},
			Doc:    "Fire a cue by hand\nMakes one execution now, or at a given moment, whatever the cue's schedule and status. With an idempotency_key, the same fire again within 24 hours answers with the execution that there is.",
		}, c.fire),
		op.Define(op.Spec{
			Name: "cue.ledger", Route: "GET /v1/cues/{id}/ledger",
			Needs: "cues:read", Effect: op.Read, Narrow: op.ByObject, May: "read the ledger of cues",
			Errors: []op.Code{CueNotFound},
			Doc:    "Account for every due time of a cue\nEach ended in one way: fired, merged into a later one, skipped, or missed. The sums are held against what the schedules name. Works for a deleted cue too.",
		}, c.ledger),
		op.Define(op.Spec{
			Name: "cue.why", Route: "GET /v1/cues/{id}/why",
			Needs: "cues:read", Effect: op.Read, Narrow: op.ByObject, May: "ask why a cue ran or did not",
			Errors: []op.Code{CueNotFound},
			Doc:    "Say why a cue ran or did not\nOne sentence about a due time, or about what the cue did last; the facts behind it; the commands that mend it. Keys are named to who holds keys:read.",
		}, c.why),
	}
}

func (c *Cues) usageOperation() *op.Operation {
	return op.Define(op.Spec{
		Name: "usage.get", Route: "GET /v1/usage",
		Needs: "usage:read", Effect: op.Read, May: "see usage",
		Doc: "Show how much of the plan is used\nCues, executions of the running month in UTC, their outcomes, and calls of the last minute.",
	}, c.getUsage)
}

func (c *Cues) liveOperation() *op.Operation {
	return op.Define(op.Spec{
		Name: "live.watch", Route: "GET /v1/live",
		Needs: "executions:read", Effect: op.Read, Narrow: op.ByObject, May: "watch what happens",
		Errors: []op.Code{CueNotFound, TooManyStreams},
		Doc: "Watch what happens\nA stream of server-sent events: each has an `id`, an `event` that is its type, and JSON as `data`. It shows what the key may see, " +
			"as its restrictions are at that moment, and ends within 100 ms when the key does, with an event `end` that says why. " +
			"To go on after a broken connection, send the last id as `Last-Event-ID`; who missed more than the server remembers (4,096 events of the workspace, as long as somebody watches or did in the last 5 minutes) is told by an event `gap`. " +
			"An `id` alone, every 15 seconds, is a sign of life. A key may have 10 streams open, a workspace 100. After an hour a stream ends and is opened again.",
	}, c.watch)
}
