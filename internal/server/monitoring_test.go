package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// series are the figures of a scrape: by the name of a metric and of a label, the values of the label.
type series map[string]map[string][]string

var (
	sampleForm = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	labelForm  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)(=~|!=|!~|=)"([^"]*)"`)
)

// scrape reads /metrics as Prometheus does, which adds where it comes from.
func scrape(t *testing.T, s *testkit.Server) (out series, text string) {
	t.Helper()
	out, text = series{"up": {"job": nil, "instance": nil}}, string(s.Must(s.First, "GET /metrics", nil).Body)
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		m := sampleForm.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("no sample: %s", line)
		}
		if out[m[1]] == nil {
			out[m[1]] = map[string][]string{"job": nil, "instance": nil}
		}
		for _, l := range labelForm.FindAllStringSubmatch(m[2], -1) {
			out[m[1]][l[1]] = append(out[m[1]][l[1]], l[3])
		}
	}
	return out, text
}

var (
	quoted     = regexp.MustCompile(`"[^"]*"`)
	grouping   = regexp.MustCompile(`\b(?:by|on|without|ignoring)\s*\(([^)]*)\)`)
	selector   = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}`)
	identifier = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	rangeForm  = regexp.MustCompile(`\[[^\]]*\]`)
)

// faults says what a query asks for that the server does not have: metrics, labels, and values of labels.
func (have series) faults(query string) (out []string) {
	fault := func(parts ...string) { out = append(out, strings.Join(parts, " ")) }
	var metrics []string
	for _, sel := range selector.FindAllStringSubmatch(query, -1) {
		for _, l := range labelForm.FindAllStringSubmatch(sel[2], -1) {
			values, ok := have[sel[1]][l[1]]
			if !ok {
				fault(sel[1], "has no label", l[1])
			}
			for _, want := range strings.Split(l[3], "|") {
				if !strings.HasPrefix(want, "$") && sel[1] != "unstuck_calls_total" && !slices.Contains(values, want) { // its series come with the calls
					fault(sel[1], "has no", l[1], want)
				}
			}
		}
	}
	bare := grouping.ReplaceAllString(rangeForm.ReplaceAllString(selector.ReplaceAllString(query, "$1"), ""), "")
	for _, name := range identifier.FindAllString(quoted.ReplaceAllString(bare, ""), -1) {
		switch {
		case slices.Contains([]string{"sum", "rate", "increase", "histogram_quantile", "time", "and"}, name):
		case have[name] == nil:
			fault("no metric", name)
		default:
			metrics = append(metrics, name)
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(query, -1) {
		for _, label := range identifier.FindAllString(g[1], -1) {
			for _, m := range metrics {
				if _, ok := have[m][label]; !ok {
					fault(m, "has no label", label)
				}
			}
		}
	}
	if len(metrics) == 0 {
		fault("no metric in", query)
	}
	return out
}

// TestQueryFaults: the check below sees a wrong name, label and value.
func TestQueryFaults(t *testing.T) {
	have := series{"a_total": {"class": {"x"}, "job": nil}}
	for query, bad := range map[string]bool{
		`sum by (class) (rate(a_total{class="x", job=~"$job"}[$__rate_interval]))`: false, `b_total`: true, `sum by (other) (a_total)`: true, `a_total{other="x"}`: true,
		`a_total{class=~"x|y"}`: true, `time() - a_total > 30`: false, `1`: true,
	} {
		if got := have.faults(query); (len(got) > 0) != bad {
			t.Errorf("%s: %v", query, got)
		}
	}
}

// TestDashboardAndRules: every query of the dashboard and of the alerting rules asks for what the server has.
func TestDashboardAndRules(t *testing.T) {
	s := testkit.New(t, "")
	have, _ := scrape(t, s)
	raw, err := os.ReadFile("../../deploy/grafana/unstuck.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title, Type string
			Datasource  struct{ UID string }
			Targets     []struct{ Expr string }
		}
		Templating struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	if v := board.Templating.List; len(v) == 0 || v[0].Name != "datasource" || v[0].Type != "datasource" {
		t.Errorf("the data source is no variable: %v", v)
	}
	for _, p := range board.Panels {
		if p.Type != "row" && (len(p.Targets) == 0 || p.Datasource.UID != "${datasource}") {
			t.Errorf("panel %q: %+v", p.Title, p)
		}
		for _, q := range p.Targets {
			for _, fault := range have.faults(q.Expr) {
				t.Errorf("panel %q: %s", p.Title, fault)
			}
		}
	}
	raw, err = os.ReadFile("../../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(raw, &rules); err != nil || len(rules.Groups) == 0 {
		t.Fatalf("%v %v", rules, err)
	}
	for _, r := range rules.Groups[0].Rules {
		if r.Alert == "" || r.Annotations["summary"] == "" || r.Annotations["what_to_do"] == "" {
			t.Errorf("%+v says nothing", r)
		}
		for _, fault := range have.faults(r.Expr) {
			t.Errorf("alert %s: %s", r.Alert, fault)
		}
	}
}

// TestMetricsCountTheWay: what happens on the way from due time to outcome is counted where the dashboard looks for it.
func TestMetricsCountTheWay(t *testing.T) {
	status := http.StatusOK
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer callback.Close()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		status = http.StatusOK
		s := testkit.NewWith(t, testkit.Setup{DSN: dsn, Still: true, Settings: func(set *server.Settings) { set.AllowCallbacks = "127.0.0.1" }})
		called := s.Must(s.First, "POST /v1/cues", obj{"name": "called", "cron": "0 11 * * *", "callback_url": callback.URL + "/", "retry": obj{"max_attempts": 1}}).Str("id")
		pulled := s.Must(s.First, "POST /v1/cues", obj{"name": "pulled", "cron": "0 0 1 1 *", "worker": true, "retry": obj{"max_attempts": 2}}).Str("id")
		s.Clock.Add(time.Hour + 2*time.Second)
		s.Drain() // fired 2 s late, and delivered
		status = http.StatusInternalServerError
		s.Must(s.First, "POST /v1/cues/"+called+"/fire", obj{})
		s.Drain() // failed
		id := s.Must(s.First, "POST /v1/cues/"+pulled+"/fire", obj{}).Str("id")
		s.Must(s.First, "POST /v1/worker/heartbeat", obj{"worker_id": "w"})
		s.Clock.Add(3 * time.Second)
		s.Must(s.First, "POST /v1/executions/claim", obj{"worker_id": "w"})
		s.Clock.Add(s.Settings.Lease)
		s.Drain() // the lease ran out: offered again
		l := s.Must(s.First, "POST /v1/executions/claim", obj{"worker_id": "w"})
		s.Must(s.First, "POST /v1/executions/"+id+"/outcome", obj{"success": true, "lease_token": l.Str("lease_token")})
		s.Must(s.First, "POST /v1/cues/"+pulled+"/fire", obj{})
		s.Must(s.First, "POST /v1/cues/"+pulled+"/pause", obj{})
		s.Clock.Add(s.Settings.UnclaimedAfter)
		s.Drain() // missed
		s.Must(s.First, "POST /v1/cues/"+pulled+"/fire", obj{})
		s.Clock.Add(time.Second)
		_, text := scrape(t, s)
		for _, want := range []string{
			`unstuck_scheduler_lag_seconds_count 1`, `unstuck_scheduler_lag_seconds_sum 2`, `unstuck_scheduler_batch_size_sum 1`,
			`unstuck_executions_created_total{triggered_by="scheduled"} 1`, `unstuck_executions_created_total{triggered_by="manual_fire"} 4`,
			`unstuck_callback_attempts_total{class="delivered"} 1`, `unstuck_callback_attempts_total{class="failed"} 1`, `unstuck_callback_endpoints{breaker="closed"} 1`,
			`unstuck_claim_wait_seconds_count 2`, `unstuck_lease_expiries_total 1`,
			`unstuck_executions_ended_total{status="success"} 2`, `unstuck_executions_ended_total{status="failed"} 1`, `unstuck_executions_ended_total{status="missed"} 1`,
			`unstuck_queue_executions{queue="claims"} 1`, `unstuck_queue_executions{queue="calls"} 0`, `unstuck_workers_active 0`, `unstuck_trace_spans_total{result="sent"} 0`,
		} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("no %s", want)
			}
		}
		if !regexp.MustCompile(`(?m)^unstuck_db_size_bytes [1-9]`).MatchString(text) || !strings.Contains(text, `unstuck_build_info{database="`) {
			t.Error("no size of the database, or not what runs")
		}
		for _, secret := range []string{called, pulled, id, "127.0.0.1", "unstuck_sk", "called\""} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in a label", secret)
			}
		}
		for name := range strings.Lines(text) {
			if strings.HasPrefix(name, "# HELP unstuck_") && len(strings.Fields(name)) < 5 {
				t.Errorf("no help: %s", name)
			}
		}
	})
}

// TestBreakerIsCounted: a callback that failed five times in a row rests, and is counted so.
func TestBreakerIsCounted(t *testing.T) {
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer callback.Close()
	s := testkit.NewWith(t, testkit.Setup{Still: true, Settings: func(set *server.Settings) { set.AllowCallbacks = "127.0.0.1" }})
	id := s.Must(s.First, "POST /v1/cues", obj{"name": "called", "cron": "0 0 1 1 *", "callback_url": callback.URL + "/", "retry": obj{"max_attempts": 1}}).Str("id")
	for range 5 {
		s.Must(s.First, "POST /v1/cues/"+id+"/fire", obj{})
		s.Drain()
	}
	have, text := scrape(t, s)
	if !strings.Contains(text, `unstuck_callback_endpoints{breaker="open"} 1`) || len(have["unstuck_callback_endpoints"]["breaker"]) != 3 {
		t.Errorf("%v", have["unstuck_callback_endpoints"])
	}
}

// A worker that stops in a long poll is no failure of the server.
func TestCallerThatWentAway(t *testing.T) {
	testkit.Each(t, func(t *testing.T, s *testkit.Server) {
		ctx, away := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer away()
		r, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/v1/executions/claim", strings.NewReader(`{"worker_id":"w","max":1,"wait":30}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.First)
		if res, err := http.DefaultClient.Do(r); err == nil {
			res.Body.Close()
			t.Fatalf("the claim was answered: %d", res.StatusCode)
		}
		const want = `unstuck_calls_total{code="canceled",operation="execution.claim"} 1`
		var page string
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
			if page = string(s.Must(s.First, "GET /metrics", nil).Body); strings.Contains(page, want) {
				return
			}
		}
		t.Errorf("no %s in:\n%s", want, page)
	})
}
