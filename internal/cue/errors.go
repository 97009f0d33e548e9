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
	PayloadOverrideMissing = op.Code{Status: 400, Name: "payload_override_required", Doc: "The cue asks every fire by hand for a payload of its own. Send payload_override."}
	PayloadKeysMissing     = op.Code{Status: 400, Name: "missing_required_payload_keys", Doc: "The payload lacks members that the cue asks for. The message names them; send them in payload_override."}
	FireKeyConflict        = op.Code{Status: 409, Name: "idempotency_key_conflict", Doc: "Another fire of this cue had this idempotency_key within the last 24 hours. Take a new key for a new fire."}
	InvalidTimezone        = op.Code{Status: 422, Name: "invalid_timezone", Doc: "The time zone is not known. Use a name of the IANA database, such as Europe/Berlin, or UTC."}
)
