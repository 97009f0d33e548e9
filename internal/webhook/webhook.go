// Package webhook sends HTTP requests to addresses that strangers chose: signed, to public addresses only, many at once, and
// so that a receiver that hangs harms nobody but itself. It knows nothing of cues or executions, and stores nothing.
//
// A delivery is a [Job]. Whoever owns it offers it to a [Sender] when it is due and gets a [Result] back when the attempt is
// over: what the receiver answered, the [Class] of that, and a sentence for people. What to do next is the owner's decision;
// [Retry] says when the next attempt is due.
//
//	body, err := webhook.Body(raw)            // the bytes that are sent and signed
//	client := webhook.Policy{}.Client()       // calls public addresses only
//	s := webhook.NewSender(webhook.Options{Client: client, Done: commit})
//	s.Offer(&webhook.Job{ID: id, Workspace: ws, Method: "POST", URL: to, Body: body, Secrets: secrets})
//	…
//	s.Stop(ctx)
//
// # What a receiver can check
//
// Every request carries two signatures over the same bytes, so that a receiver may use whichever library it has:
//
//   - CueAPI: X-CueAPI-Timestamp holds Unix seconds, X-CueAPI-Signature holds "v1=" and the hexadecimal HMAC-SHA256 of
//     timestamp + "." + body. The key is the secret as it is written, "whsec_" included. CueAPI's Python SDK parses the body
//     and writes it again before it computes the HMAC, so bodies are written as Python would write them: see [Body].
//   - Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):
//     webhook-id, webhook-timestamp, and webhook-signature with "v1," and the base64 HMAC-SHA256 of
//     id + "." + timestamp + "." + body. The key is what the libraries of that standard make of the secret: the base64 decoding
//     of what follows "whsec_". A secret of ours has 64 hexadecimal digits there; read as base64 they are 48 bytes. So hand
//     the secret as it is to a library, and do not decode its digits as hexadecimal. A secret that is no base64 is used as it
//     is written (the libraries' "raw" constructors).
//
// While a secret is being replaced there are several. webhook-signature carries one signature for each, separated by spaces;
// X-CueAPI-Signature can carry only one, which is that of the first. The webhook-id is the same on every attempt: a receiver
// that has seen it before has seen this delivery before.
//
// # Whom it calls
//
// The policy resolves a name once, refuses every address that is not public, and dials the very address that it looked
// at; the socket looks again. Redirects are not followed, proxies not used, and a reply is read up to 64 KiB.
//
// # Who goes first
//
// Workspaces take turns, and within one its endpoints do. An endpoint is a workspace together with an address up to its "?".
// How many requests may be on their way to one endpoint is its window: it starts at one, grows by one with each answer that
// made another wait, and falls to one with a fault. What is on its way altogether is counted in two lanes: endpoints
// that answered swiftly the last time are proven, all others doubtful, and an attempt that takes longer than a second, or
// 50 ms (at least four times what is usual) when others wait for its place, counts as doubtful from then on. Those that hang therefore fill the doubtful lane,
// never the other. In either lane a workspace may hold as many places as are free, so that there is always one for a newcomer.
//
// After five faults in a row (no connection, no answer in time, 5xx) an endpoint rests: nothing is sent to it for five seconds,
// then one request to see whether it lives; each time it does not, the rest is twice as long, up to five minutes. What is offered
// meanwhile comes back [Unsent].
package webhook

import (
	"net/http"
	"time"
)

// Job is one attempt at a delivery. From Offer on it belongs to the sender, until it comes back in a Result.
type Job struct {
	ID        string // of the delivery, the same on every attempt: the webhook-id
	Workspace string // workspaces take turns
	Method    string // GET is sent without the body, but signed over it (CueAPI wire contract 3.3)
	URL       string
	// Header is what the delivery itself says, spelled as the keys are: Go's Header.Set would write X-Cueapi-Cue-Id, which
	// receivers with a plain dictionary miss. Content-Type defaults to application/json, User-Agent to
	// CueAPI/1.0.
	Header http.Header
	// Custom are headers that the owner of the address asked for. They replace Content-Type, User-Agent and Accept; those that
	// would replace anything of Header, of the signatures or of the framing of the message are left out.
	Custom  map[string]string
	Body    []byte
	Secrets []string      // that live now; the first makes X-CueAPI-Signature. None: unsigned
	Timeout time.Duration // of the whole attempt, from resolving the name to the last byte of the reply; 0 means 30 s
	Tag     any           // the owner's own
	// Skip is asked right before the attempt begins; if it answers true, the job comes back Unsent. Nil never does.
	Skip func() bool
}

// defaultTimeout is CueAPI wire contract 8.
const defaultTimeout = 30 * time.Second

// Result is what became of a job.
type Result struct {
	Job     *Job
	Class   Class
	Status  int    // of the reply; 0 when none came
	Message string // what went wrong, for people (CueAPI wire contract 3.4); "" when delivered
	Body    []byte // the first 64 KiB of the reply
	Began   time.Time
	Took    time.Duration
	// Again says that the request went out a second time: a connection that was kept broke off before an answer came, and whether the
	// receiver got the first one is not known.
	Again bool
	// Wait is how long the receiver asked to be left alone (Retry-After, at most 24 h), or, when the job is Unsent because its
	// endpoint rests, how long it still does.
	Wait time.Duration
	Err  error // the cause of a fault, for the log
}
