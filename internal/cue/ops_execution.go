package cue

import "unstuck/internal/op"

// Codes of executions and workers (CueAPI wire contract 2.4, 2.6).
var (
	ExecutionNotFound      = op.Code{Status: 404, Name: "execution_not_found", Doc: "There is no execution of this id that this key can see. It may be kept no longer. List the executions to find the right id."}
	ConflictingFilters     = op.Code{Status: 400, Name: "conflicting_filters", Doc: "Two filters say the same thing in two ways. Send one of them."}
	InvalidStatusIn        = op.Code{Status: 400, Name: "invalid_status_in", Doc: "The list of statuses is empty. Name at least one, or leave the filter out."}
	ClaimFailed            = op.Code{Status: 409, Name: "claim_failed", Doc: "There is nothing to take, or somebody else has it. Ask again later; with max the answer is an empty list instead, and wait waits."}
	ExecutionNotClaiming   = op.Code{Status: 409, Name: "execution_not_claiming", Doc: "No worker holds the execution: its lease ended or its outcome was reported. Stop working on it, or claim it again."}
	NotExecutionOwner      = op.Code{Status: 403, Name: "not_execution_owner", Doc: "Another worker claimed the execution. Send the X-Worker-Id with which it was claimed."}
	StaleClaim             = op.Code{Status: 409, Name: "stale_claim", Doc: "The lease is over and somebody else may hold the execution; `execution` says how it stands. Stop working on it."}
	OutcomeAlreadyRecorded = op.Code{Status: 409, Name: "outcome_already_recorded", Doc: "The execution has another outcome already, and outcomes are written once. Evidence can still be added."}
	MetadataTooLarge       = op.Code{Status: 400, Name: "metadata_too_large", Doc: "The metadata has more than 65,536 bytes. Put it elsewhere and send its address as result_url."}
	NoOutcome              = op.Code{Status: 409, Name: "no_outcome", Doc: "The execution has no outcome yet. Report it first."}
	EvidenceFull           = op.Code{Status: 409, Name: "evidence_full", Doc: "An execution takes 100 versions of evidence from workers, 4 MiB together, and 200 with what people judge. Put more elsewhere and add its address."}
	InvalidState           = op.Code{Status: 409, Name: "invalid_state", Doc: "The outcome was judged already, or there is none. Mark it as pending first to judge it again."}
	ExecutionInFlight      = op.Code{Status: 409, Name: "execution_in_flight", Doc: "The execution has not ended yet. Wait until it has, then replay it."}
	WorkerNotFound         = op.Code{Status: 404, Name: "worker_not_found", Doc: "There is no worker of this id. List the workers to find the right one."}
)

// executionOperations is the outside of executions: what workers do first, then what people do.
func (c *Cues) executionOperations() []*op.Operation {
	return []*op.Operation{
		op.Define(op.Spec{
			Name: "execution.claimable", Route: "GET /v1/executions/claimable",
			Needs: "executions:read", Effect: op.Read, Narrow: op.ByObject, May: "list work",
			Doc: "List work that can be claimed\nUp to 50 executions that are due and free, with payloads of about 2 MiB at most. Without a task the tasks take turns, the oldest of each first.",
		}, c.claimable),
		op.Define(op.Spec{
			Name: "execution.claim", Route: "POST /v1/executions/claim",
			Needs: "executions:claim", Effect: op.Write, Narrow: op.ByObject, Unaudited: true, Open: true, May: "take work",
			Errors: []op.Code{ClaimFailed},
			Doc:    "Claim the oldest work\nOne execution, or with max up to 100 in a list, fewer when their payloads would exceed 2 MiB together. With wait the call waits up to 30 seconds for some. The lease lasts 15 minutes and is renewed by heartbeats.",
		}, c.claimOldest),
		op.Define(op.Spec{
			Name: "execution.claim_one", Route: "POST /v1/executions/{id}/claim",
			Needs: "executions:claim", Effect: op.Write, Narrow: op.ByObject, Unaudited: true, Open: true, May: "take work",
			Errors: []op.Code{ClaimFailed},
			Doc:    "Claim one execution\nEvery reason why it cannot be taken has the same answer.",
		}, c.claimByID),
		op.Define(op.Spec{
			Name: "execution.heartbeat", Route: "POST /v1/executions/{id}/heartbeat",
			Needs: "executions:claim", Effect: op.Write, Narrow: op.ByObject, Unaudited: true, Open: true, Lenient: true, Idempotent: true, May: "renew a lease",
			Errors: []op.Code{ExecutionNotFound, ExecutionNotClaiming, NotExecutionOwner, StaleClaim},
			Doc:    "Renew the lease of an execution\nFor work that takes longer than the lease.",
		}, c.heartbeat),
		op.Define(op.Spec{
			Name: "execution.release", Route: "POST /v1/executions/{id}/release",
			Needs: "executions:claim", Effect: op.Write, Narrow: op.ByObject, Unaudited: true, Lenient: true, May: "give work back",
			Errors: []op.Code{ExecutionNotFound, NotExecutionOwner, StaleClaim},
			Doc:    "Give an execution back\nIt is offered to workers again at once, instead of at the end of the lease. Work that had not begun does not count as an attempt; after the last attempt it has failed.",
		}, c.release),
		op.Define(op.Spec{
			Name: "execution.report", Route: "POST /v1/executions/{id}/outcome",
			Needs: "executions:report", Effect: op.Write, Narrow: op.ByObject, Unaudited: true, Open: true, Lenient: true, Idempotent: true, May: "report an outcome",
			Errors: []op.Code{ExecutionNotFound, OutcomeAlreadyRecorded, StaleClaim, MetadataTooLarge},
			Doc:    "Report the outcome of an execution\nOnce: the same report again gets the same answer, another one is refused. Whether the outcome counts as verified is decided by the cue's policy. Of a webhook for which a 2xx is done, the status stays as it is.",
		}, c.report),
		op.Define(op.Spec{
			Name: "execution.add_evidence", Route: "PATCH /v1/executions/{id}/evidence",
			Needs: "executions:report", Effect: op.Write, Narrow: op.ByObject, Unaudited: true, Open: true, Lenient: true, May: "add evidence",
			Errors: []op.Code{ExecutionNotFound, NoOutcome, StaleClaim, MetadataTooLarge, EvidenceFull},
			Doc:    "Add evidence to an outcome\nEmpty values add nothing. Every version is kept, up to 100 of them and 4 MiB together, and the cue's policy is asked again.",
		}, c.addEvidence),
		op.Define(op.Spec{
			Name: "execution.list", Route: "GET /v1/executions",
			Needs: "executions:read", Effect: op.Read, Narrow: op.ByObject, May: "list executions",
			Errors: []op.Code{ConflictingFilters, InvalidStatusIn, CueNotFound},
			Doc:    "List executions\nNewest first, of one cue by its id or name. What is large is left out and named in `omitted`; execution.get shows it.",
		}, c.listExecutions),
		op.Define(op.Spec{
			Name: "execution.get", Route: "GET /v1/executions/{id}",
			Needs: "executions:read", Effect: op.Read, Narrow: op.ByObject, May: "see executions",
			Errors: []op.Code{ExecutionNotFound},
			Doc:    "Show an execution",
		}, c.getExecution),
		op.Define(op.Spec{
			Name: "execution.why", Route: "GET /v1/executions/{id}/why",
			Needs: "executions:read", Effect: op.Read, Narrow: op.ByObject, May: "ask why an execution stands as it does",
			Errors: []op.Code{ExecutionNotFound},
			Doc:    "Say why an execution stands as it does\nOne sentence, the facts behind it, and the commands that mend it.",
		}, c.whyExecution),
		op.Define(op.Spec{
			Name: "execution.check_evidence", Route: "GET /v1/executions/{id}/check-evidence",
			Needs: "executions:read", Effect: op.Read, Narrow: op.ByObject, May: "check evidence",
			Errors: []op.Code{ExecutionNotFound},
			Doc:    "Check that the evidence of an execution is whole\nWalks its chain of hashes, holds the outcome against it, and shows every version.",
		}, c.checkEvidence),
		op.Define(op.Spec{
			Name: "execution.verify", Route: "POST /v1/executions/{id}/verify",
			Needs: "executions:verify", Effect: op.Write, Narrow: op.ByObject, Open: true, May: "verify an outcome",
			Errors: []op.Code{ExecutionNotFound, InvalidState, EvidenceFull},
			Doc:    "Verify an outcome\nConfirms it, or with valid=false rejects it.",
		}, c.verify),
		op.Define(op.Spec{
			Name: "execution.mark_pending", Route: "POST /v1/executions/{id}/verification-pending",
			Needs: "executions:verify", Effect: op.Write, Narrow: op.ByObject, Open: true, Idempotent: true, May: "put an outcome up for verification",
			Errors: []op.Code{NoOutcome, EvidenceFull, op.NotFound},
			Doc:    "Put an outcome up for verification\nWhatever was said about it before, it now waits for somebody to verify it.",
		}, c.markPending),
		op.Define(op.Spec{
			Name: "execution.attest", Route: "POST /v1/executions/{id}/live-claim",
			Needs: "executions:report", Effect: op.Write, Narrow: op.ByObject, Unaudited: true, Open: true, Idempotent: true, May: "attest a live session",
			Errors: []op.Code{ExecutionNotFound, AlreadyAttested},
			Doc:    "Attest that a live session works on an execution\nThe first session stands; the same one gets the same answer again. Nothing else depends on it.",
		}, c.attest),
		op.Define(op.Spec{
			Name: "execution.replay", Route: "POST /v1/executions/{id}/replay",
			Needs: "executions:replay", Effect: op.Write, Narrow: op.ByObject, Open: true, May: "replay an execution",
			Errors: []op.Code{ExecutionNotFound, ExecutionInFlight, ExecutionLimitExceeded},
			Doc:    "Replay an execution that has ended\nMakes a new one with the payload of the old one.",
		}, c.replay),
		op.Define(op.Spec{
			Name: "worker.heartbeat", Route: "POST /v1/worker/heartbeat",
			Needs: "executions:claim", Effect: op.Write, Narrow: op.Always, Unaudited: true, Open: true, Idempotent: true, May: "announce a worker",
			Doc: "Say that a worker is there\nAlso renews the leases that this key and worker took without using their token, for at most two hours after the claim.",
		}, c.workerHeartbeat),
		op.Define(op.Spec{
			Name: "worker.list", Route: "GET /v1/workers",
			Needs: "executions:read", Effect: op.Read, May: "list workers",
			Doc: "List workers\nThe one heard of last first; at most 1,000, with handlers of 2 MiB at most.",
		}, c.listWorkers),
		op.Define(op.Spec{
			Name: "worker.delete", Route: "DELETE /v1/workers/{worker_id}",
			Needs: "executions:claim", Effect: op.Destroy, May: "delete workers",
			Errors: []op.Code{WorkerNotFound},
			Doc:    "Delete a worker from the list\nWhat it holds stays with it until its leases end.",
		}, c.deleteWorker),
	}
}
