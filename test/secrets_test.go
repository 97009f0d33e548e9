package test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/rest"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// spy gathers every secret that a server hands out, and everything that it says where none must be.
type spy struct {
	s       *testkit.Server
	secrets map[string]string // what they are for, by secret
	said    strings.Builder   // bodies of refusals and failures
}

var (
	ourKeys    = regexp.MustCompile(`unstuck_[0-9A-Za-z]{49}_[0-9a-f]{8}`)
	hexSecrets = regexp.MustCompile(`\b(?:whsec_)?[0-9a-f]{64}\b`)
)

// do makes a call, notes the secrets in its answer, and keeps what a refusal says.
func (p *spy) do(key, route string, body any, headers ...string) testkit.Reply {
	r := p.s.Do(key, route, body, headers...)
	if r.Status >= 400 {
		p.said.Write(r.Body)
		fmt.Fprintln(&p.said, r.Header)
		return r
	}
	for _, form := range []*regexp.Regexp{ourKeys, hexSecrets} {
		for _, secret := range form.FindAllString(string(r.Body), -1) {
			if !strings.Contains(route, "check-evidence") { // which shows hashes
				p.secrets[secret] = route
			}
		}
	}
	return r
}

// TestSecretsAreNowhere lets a server hand out every kind of secret, and callers put theirs where they do not belong. No run of
// eight characters of any of them is found in the database, its log, a backup, what the server logs, its metrics, its errors or
// its descriptions.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		p := &spy{secrets: map[string]string{}}
		p.s = testkit.NewWith(t, testkit.Setup{DSN: dsn, Settings: func(o *server.Settings) { o.Register = "open"; behindProxy(o); outside(o, p.secrets) }})
		p.secrets[p.s.First] = "first key"
		p.keysOfAllKinds(t)
		p.misplaced()
		p.reported()
		p.alerts(t)
		p.panics(t)
		if err := p.s.Access().Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		own, err := os.ReadFile(filepath.Join(p.s.Settings.Data, "secret"))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range hexSecrets.FindAllString(string(own), -1) {
			p.secrets[secret] = "server secret"
		}
		if len(p.secrets) < 20 {
			t.Errorf("only %d secrets were handed out: the test shows little", len(p.secrets))
		}
		p.search(t)
	})
}

// outside names a mail server and a watch that are not there, with secrets.
func outside(o *server.Settings, secrets map[string]string) {
	o.SMTPHost, o.SMTPPort, o.SMTPFrom, o.SMTPTLS, o.SMTPUser = "127.0.0.1", 1, "unstuck@example.com", "none", "unstuck"
	o.SMTPPassword = strings.Repeat("5ec7e7a1b2c3d4e5", 4)
	o.HeartbeatURL = "https://127.0.0.1:1/" + strings.Repeat("fedcba9876543210", 4)
	secrets[o.SMTPPassword], secrets[path.Base(o.HeartbeatURL)] = "mail password", "address of the outside watch"
}

// alerts lets the server try to reach them.
func (p *spy) alerts(t *testing.T) {
	p.do(p.s.First, "PUT /v1/alerts/channels/email", obj{"address": "ops@example.com"})
	if r := p.do(p.s.First, "POST /v1/alerts/test", obj{}); !strings.Contains(string(r.Body), "is not reached") {
		t.Errorf("%s", r.Body)
	}
	if err := p.s.Beat(t.Context()); err == nil {
		t.Error("the outside watch is there")
	}
	p.do(p.s.First, "GET /v1/alerts/channels", nil)
}

func (p *spy) keysOfAllKinds(t *testing.T) {
	first := p.s.First
	k := p.do(first, "POST /v1/keys", obj{"name": "integration", "scope": "full"})
	p.do(k.Str("key"), "POST /v1/keys", obj{"name": "child", "scope": "worker"})
	p.do(first, "POST /v1/keys", obj{"name": "repeated", "scope": "worker"}, "Idempotency-Key", "once")
	p.do(first, "POST /v1/keys", obj{"name": "repeated", "scope": "worker"}, "Idempotency-Key", "once")
	rotated := p.do(first, "POST /v1/keys/"+k.Str("id")+"/rotate", obj{})
	p.do(rotated.Str("key"), "GET /v1/keys/self", nil)
	p.do(first, "POST /v1/keys/"+k.Str("id")+"/rotate", obj{"now": true, "reason": "leaked"})
	p.do(k.Str("key"), "GET /v1/keys/self", nil) // rotated
	again := p.do(first, "POST /v1/keys", obj{"name": "again", "scope": "full"}).Str("key")
	p.do(again, "POST /v1/auth/key/regenerate", nil, "X-Confirm-Destructive", "true")
	p.do(first, "POST /v1/auth/keys", obj{"label": "old clients"})
	p.do(first, "POST /v1/me/keys", obj{"name": "laptop"})
	p.do(first, "POST /v1/members", obj{"email": "colleague@example.com", "role": "operator"})
	p.do(first, "POST /v1/workspaces", obj{"name": "second"})
	p.do("", "POST /v1/auth/register", obj{"email": "somebody@example.com"})
	for _, kind := range []string{"webhook-secret", "alert-webhook-secret"} {
		p.do(first, "GET /v1/auth/"+kind, nil)
		p.do(first, "POST /v1/auth/"+kind+"/regenerate", nil, "X-Confirm-Destructive", "true")
		p.do(first, "GET /v1/auth/"+kind, nil)
	}
	revoked := p.do(first, "POST /v1/keys", obj{"name": "revoked", "scope": "full"})
	p.do(first, "POST /v1/keys/"+revoked.Str("id")+"/revoke", obj{"reason": "test"})
	p.do(revoked.Str("key"), "GET /v1/keys/self", nil)
	key, _, err := p.s.Access().LocalLogin(t.Context(), "local", "")
	if err != nil {
		t.Fatal(err)
	}
	p.secrets[key.Secret] = "local login"
	if _, err := p.s.Access().RotateServerSecret(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.do(first, "GET /v1/keys/self", nil) // is hashed again
}

// misplaced sends the first key where something else belongs: as id, in queries, in wrong headers, in bodies that are refused.
func (p *spy) misplaced() {
	first := p.s.First
	for i, o := range p.s.Set().All() {
		path := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(o.Path(), first)
		route := o.Method() + " " + path
		from := append(fromElsewhere(int64(i)), "X-Confirm-Destructive", "true")
		if path != o.Path() {
			p.do(first, route, obj{"worker_id": "w", "role": "viewer", "label": "x", "success": true, "expires_in": "1y", "drop_restrictions": []string{"via"}}, from...)
		}
		p.do("", route, nil, append(from, "Authorization", "Basic "+first)...)
		p.do("", route, nil, append(from, "Authorization", "Bearer  "+first+"x")...)
		if !strings.Contains(o.Path(), "{") && o.Name != "auth_key.regenerate" {
			p.do(first, route+"?cursor="+first+"&status="+first+"&api_key="+first+"&since="+first+"&permission="+first+"&cue_id="+first, `{"`+first+`":"`+first+`"}`, from...)
			p.do(first, route, `{"`+first, from...)
		}
	}
	p.do(first, "GET /v1/"+first, nil)
	p.do(first, "POST /v1/keys/verify", obj{"key": first, "permission": first})
	p.do(first, "POST /v1/keys/verify", obj{"key": first, "permission": "cues:read"})
	p.do(first, "POST /v1/keys", obj{"name": "x", "scope": first})
	p.do(first, "POST /v1/keys", obj{"name": "x", "permissions": []string{first}})
	p.do(first, "POST /v1/keys", obj{"name": "x", "scope": "worker", "restrictions": obj{"ips": []string{first}}})
	p.do(first, "POST /v1/keys", obj{"name": "x", "scope": "worker", "expires_in": first})
	p.do(first, "GET /v1/keys/authorize?permission="+first, nil)
	bound := p.do(first, "POST /v1/keys", obj{"name": "bound", "scope": "worker", "restrictions": obj{"worker_ids": []string{"w"}}}).Str("key")
	p.do(bound, "POST /v1/executions/claim", obj{"worker_id": bound})
	p.do(first, "GET /v1/cues", nil, "User-Agent", "agent/"+first, "X-Unstuck-Client", first)
}

// reported lets workers send keys in everything that they may say.
func (p *spy) reported() {
	first := p.s.First
	worker := p.do(first, "POST /v1/keys", obj{"name": "worker", "scope": "worker"}).Str("key")
	cue := p.do(first, "POST /v1/cues", obj{"name": "c", "cron": "0 0 1 1 *", "worker": true}).Str("id")
	for _, success := range []bool{true, false} {
		id := p.do(first, "POST /v1/cues/"+cue+"/fire", obj{}).Str("id")
		lease := p.do(worker, "POST /v1/executions/"+id+"/claim", obj{"worker_id": "w"}).Str("lease_token")
		environment := "PATH=/bin\nUNSTUCK_API_KEY=" + worker + "\nCUEAPI_API_KEY=\"" + first + "\"\n"
		p.do(worker, "POST /v1/executions/"+id+"/outcome", obj{
			"lease_token": lease, "success": success, "result": strings.Repeat("é", 16_360) + environment, "error": environment, "summary": "with " + worker, "external_id": worker, "result_ref": worker,
			"result_url": "https://example.com/?key=" + worker, "result_type": worker, "artifacts": []any{worker, obj{"env": environment, worker: 1}}, "metadata": obj{"env": environment, worker: []any{obj{"k": worker}}},
		})
		p.do(worker, "PATCH /v1/executions/"+id+"/evidence", obj{"lease_token": lease, "summary": strings.Repeat("s", 470) + worker, "metadata": obj{worker: worker}})
		p.do(first, "GET /v1/executions/"+id, nil)
		p.do(first, "GET /v1/executions/"+id+"/check-evidence", nil)
		p.do(first, "POST /v1/executions/"+id+"/verify", obj{"valid": false, "reason": environment})
	}
}

// panics lets operations panic with all that they know.
func (p *spy) panics(t *testing.T) {
	log := slog.New(slog.NewJSONHandler(logWriter{&p.said}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	type in struct {
		Key access.SecretText `json:"key" secrets:"may"`
	}
	make := func(name string, value func(context.Context, in) any) *op.Operation {
		return op.Define(op.Spec{Name: "panic." + name, Route: "POST /v1/panic/" + name, Needs: op.AnyKey, Effect: op.Write, Unaudited: true, May: "panic", Doc: "Panic"},
			func(ctx context.Context, i in) (op.None, error) { panic(value(ctx, i)) })
	}
	secret, _, err := p.s.Access().LocalLogin(t.Context(), "for a panic", "")
	if err != nil {
		t.Fatal(err)
	}
	p.secrets[secret.Secret] = "local login"
	set := op.NewSet(p.s.Access(), log, p.s.Clock.Now,
		make("caller", func(ctx context.Context, _ in) any {
			return fmt.Sprintf("%v %+v %#v", access.From(ctx), access.From(ctx), access.From(ctx))
		}),
		make("input", func(_ context.Context, i in) any {
			return fmt.Sprintf("%v %+v %#v %s %q %x", i, i, i, i.Key, i.Key, i.Key)
		}),
		make("key", func(context.Context, in) any {
			return fmt.Sprintf("%v %+v %#v %s %q", secret, secret, secret, &secret, []any{secret})
		}),
		make("error", func(_ context.Context, i in) any { return fmt.Errorf("a handler failed with %v", i) }),
	)
	h := rest.New(rest.Options{Set: set, Log: log})
	for _, o := range set.All() {
		req, err := http.NewRequest(o.Method(), o.Path(), strings.NewReader(`{"key":"`+p.s.First+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+p.s.First)
		w := &recorder{header: http.Header{}}
		h.ServeHTTP(w, req)
		if w.status != 500 {
			t.Errorf("%s: %d %s", o.Name, w.status, w.body.String())
		}
		p.said.WriteString(w.body.String())
	}
}

type logWriter struct{ b *strings.Builder }

func (w logWriter) Write(b []byte) (int, error) { return w.b.Write(b) }

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// search looks for pieces of the secrets in everything that outlives a call.
func (p *spy) search(t *testing.T) {
	pieces := piecesOf(p.secrets)
	look := func(where, text string) {
		t.Helper()
		if what := pieces.in(text); what != "" {
			t.Errorf("%s holds a piece of a secret (%s)", where, what)
		}
	}
	if pieces.in("…"+p.s.First[20:40]+"…") == "" {
		t.Fatal("the search finds nothing")
	}
	for _, page := range []string{"/metrics", "/openapi.json", "/docs", "/health", "/v1/scopes", "/v1/info"} {
		r := p.s.Must(p.s.First, "GET "+page, nil)
		look(page, string(r.Body))
	}
	for _, list := range []string{"/v1/keys?limit=1000", "/v1/audit?limit=1000", "/v1/executions?limit=100", "/v1/members", "/v1/me/keys", "/v1/auth/keys", "/v1/auth/me", "/v1/keys/self", "/v1/alerts", "/v1/alerts/channels"} {
		look(list, string(p.s.Must(p.s.First, "GET "+list, nil).Body))
	}
	look("an error", p.said.String())
	for table, rows := range everything(t, p.s) {
		look("the table "+table, rows)
	}
	p.files(t, look, "while it runs")
	p.s.Stop()
	p.files(t, look, "after a stop")
	look("the log", p.s.Log.String())
}

// files looks into every file of the data folder but the server secret, and into a backup.
func (p *spy) files(t *testing.T, look func(where, text string), when string) {
	data := p.s.Settings.Data
	if p.s.Settings.Database == "" {
		if err := server.Backup(t.Context(), p.s.Settings, filepath.Join(data, "backup "+when)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Name() == "secret" || !f.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(data, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		look(f.Name()+" "+when, string(text))
	}
}

// everything is the content of all tables, those of what happened too.
func everything(t *testing.T, s *testkit.Server) map[string]string {
	u := newDumper(t, s)
	u.tables = append(u.tables, kept...)
	out := u.all(t)
	err := u.d.View(context.Background(), func(tx *db.Tx) error { // which a dump leaves out
		rows, err := read(tx, "SELECT last_used AS what FROM secrets")
		out["last uses"] = strings.Join(rows, "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pieces are the parts of secrets that nothing else holds by chance: eight characters of a key, which are 47 bits, and twelve of a
// secret in hexadecimal digits, which are 48.
type pieces struct {
	keys map[[8]byte]string
	hex  map[[12]byte]string
}

func piecesOf(secrets map[string]string) pieces {
	out := pieces{map[[8]byte]string{}, map[[12]byte]string{}}
	for secret, what := range secrets {
		if rest, ok := strings.CutPrefix(secret, "unstuck_"); ok {
			for i := 0; i+8 <= 49; i++ {
				out.keys[[8]byte([]byte(rest[i:i+8]))] = what
			}
			continue
		}
		digits := strings.TrimPrefix(secret, "whsec_")
		for i := 0; i+12 <= len(digits); i++ {
			out.hex[[12]byte([]byte(digits[i:i+12]))] = what
		}
	}
	return out
}

// in says of which secret a text holds a piece; "" for none.
func (p pieces) in(text string) string {
	b := []byte(text)
	for i := 0; i+8 <= len(b); i++ {
		if what, ok := p.keys[[8]byte(b[i:i+8])]; ok {
			return what + fmt.Sprintf(": %.120q", b[max(0, i-60):min(len(b), i+30)])
		}
		if i+12 <= len(b) {
			if what, ok := p.hex[[12]byte(b[i:i+12])]; ok {
				return what + fmt.Sprintf(": %.120q", b[max(0, i-60):min(len(b), i+30)])
			}
		}
	}
	return ""
}
