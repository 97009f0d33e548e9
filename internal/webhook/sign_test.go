package webhook

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	oldSecret = "whsec_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	newSecret = "whsec_ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
)

// value is a header's, by a name that is not spelled as Go would.
func value(h map[string][]string, name string) string { return strings.Join(h[name], "|") }

// TestSignaturesArePythons: both signatures are the ones that CueAPI's SDK and Python's standardwebhooks accepted when they were
// recorded.
func TestSignaturesArePythons(t *testing.T) {
	var v struct {
		Secret, ID string
		Vectors    []struct {
			Body, CueAPI, Standard string
			Timestamp              int64
		}
	}
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	for _, x := range v.Vectors {
		h := http.Header{}
		sign(h, v.ID, []byte(x.Body), []string{v.Secret}, time.Unix(x.Timestamp, 0))
		if got := value(h, cueSignature); got != x.CueAPI {
			t.Errorf("%.60s: X-CueAPI-Signature is %s, not %s", x.Body, got, x.CueAPI)
		}
		if got := value(h, stdSignature); got != x.Standard {
			t.Errorf("%.60s: webhook-signature is %s, not %s", x.Body, got, x.Standard)
		}
	}
}

// TestRotation: while two secrets live, a receiver that has either accepts.
func TestRotation(t *testing.T) {
	h, body := http.Header{}, []byte(`{"a": 1}`)
	sign(h, "id", body, []string{oldSecret, newSecret}, time.Now())
	if n := len(strings.Fields(value(h, stdSignature))); n != 2 {
		t.Errorf("%d signatures", n)
	}
	received := http.Header{} // as a server of Go's has them
	for name, values := range h {
		received.Set(name, values[0])
	}
	for secret, want := range map[string]bool{oldSecret: true, newSecret: true, "whsec_" + strings.Repeat("00", 32): false} {
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := wh.Verify(body, received); (err == nil) != want {
			t.Errorf("%s: %v", secret, err)
		}
		if wh.Verify([]byte(`{"a": 2}`), received) == nil {
			t.Errorf("%s: another body passes", secret)
		}
	}
	if want := cueAPI(value(h, cueTimestamp), body, oldSecret); value(h, cueSignature) != want {
		t.Errorf("X-CueAPI-Signature is not that of the first secret")
	}
}

// TestBareSecret: the secret of alerts has no prefix, and one may be no base64.
func TestBareSecret(t *testing.T) {
	for _, secret := range []string{strings.Repeat("0a", 32), "no base64!"} {
		h := http.Header{}
		sign(h, "id", []byte("{}"), []string{secret}, time.Now())
		received := http.Header{}
		for name, values := range h {
			received.Set(name, values[0])
		}
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			wh, _ = standardwebhooks.NewWebhookRaw([]byte(secret))
		}
		if err := wh.Verify([]byte("{}"), received); err != nil {
			t.Errorf("%s: %v", secret, err)
		}
	}
}

// TestHeaders: names go out spelled as given, and nobody can replace ours.
func TestHeaders(t *testing.T) {
	j := &Job{
		ID: "id", Method: "POST", Body: []byte("{}"), Secrets: []string{oldSecret}, Header: http.Header{"X-CueAPI-Cue-Id": {"cue_1"}},
		Custom: map[string]string{
			"x-cueapi-signature": "v1=forged", "X-CueAPI-Cue-Id": "forged", "X-CUEAPI-NEW": "forged", "WEBHOOK-ID": "forged", "webhook-signature": "forged",
			"X_CueAPI_Signature": "v1=forged", "Webhook_ID": "forged", "x_cueapi-new": "forged",
			"host": "forged", "Content-Length": "0", "transfer-encoding": "chunked", "Connection": "close", "Upgrade": "h2c",
			"content-type": "application/cloudevents+json", "user-agent": "mine", "x-Token": "t", "Authorization": "Bearer x",
		},
	}
	h := headers(j)
	sign(h, j.ID, j.Body, j.Secrets, time.Unix(1, 0))
	want := map[string]string{
		"Content-Type": "application/cloudevents+json", "User-Agent": "mine", "Accept": "*/*", "x-Token": "t", "Authorization": "Bearer x",
		"X-CueAPI-Cue-Id": "cue_1", "X-CueAPI-Timestamp": "1", "X-CueAPI-Signature": cueAPI("1", j.Body, oldSecret),
		"webhook-id": "id", "webhook-timestamp": "1", "webhook-signature": standard("id", "1", j.Body, j.Secrets),
	}
	for name, values := range h {
		if len(values) > 0 && want[name] != values[0] {
			t.Errorf("%s: %s", name, values[0])
		}
	}
	for name, value := range want {
		if v := h[name]; len(v) != 1 || v[0] != value {
			t.Errorf("%s is %q, not %q", name, v, value)
		}
	}
}
