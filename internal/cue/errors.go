package cue

import "unstuck/internal/op"

// Codes of cues (CueAPI wire contract 2.3, 3.9, 8).
var (
	CueNotFound            = op.Code{Status: 404, Name: "cue_not_found", Doc: "There is no cue of this id that this key can see. List the cues to find the right id."}
	DuplicateCueName       = op.Code{Status: 409, Name: "duplicate_cue_name", Doc: "Another cue of the workspace has this name. Choose another, or change the one that has it."}
	CueLimitExceeded       = op.Code{Status: 403, Name: "cue_limit_exceeded", Doc: "The plan's number of active and paused cues is reached. Delete one, or raise the plan."}
	ExecutionLimitExceeded = op.Code{Status: 403, Name: "execution_limit_exceeded", Doc: "The plan's executions of this month are used up, and the day of grace is over. Wait for the next month, or raise the plan."}
	InvalidCallbackURL     = op.Code{Status: 400, Name: "invalid_callback_url", Doc: "The callback's address may not be called. The message says why."}
	InvalidPayload         = op.Code{Status: 400, Name: "invalid_payload", Doc: "The payload holds something that cannot be delivered. The message names it."}
	InvalidPayloadSize     = op.Code{Status: 400, Name: "invalid_payload_size", Doc: "The payload is larger than 1 MiB. Put the data elsewhere and send its address."}
	InvalidSchedule        = op.Code{Status: 400, Name: "invalid_schedule", Doc: "The schedule cannot be followed. The message says which part and what is allowed."}
	InvalidTimezone        = op.Code{Status: 422, Name: "invalid_timezone", Doc: "The time zone is not known. Use a name of the IANA database, such as Europe/Berlin, or UTC."}
)
