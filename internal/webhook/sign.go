package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Names of the headers that the sender writes itself, spelled as they go over the wire (CueAPI wire contract 3.3, Standard
// Webhooks).
const (
	cueTimestamp = "X-CueAPI-Timestamp"
	cueSignature = "X-CueAPI-Signature"
	stdID        = "webhook-id"
	stdTimestamp = "webhook-timestamp"
	stdSignature = "webhook-signature"
)

// sign adds id, time and both signatures over body to h. Without a secret it adds no signature.
func sign(h http.Header, id string, body []byte, secrets []string, at time.Time) {
	seconds := strconv.FormatInt(at.Unix(), 10)
	values := []string{seconds, id, seconds, "", ""}
	h[cueTimestamp], h[stdID], h[stdTimestamp] = values[0:1:1], values[1:2:2], values[2:3:3]
	if len(secrets) == 0 {
		return
	}
	values[3], values[4] = cueAPI(seconds, body, secrets[0]), standard(id, seconds, body, secrets)
	h[cueSignature], h[stdSignature] = values[3:4:4], values[4:5:5]
}

// cueAPI is the value of X-CueAPI-Signature.
func cueAPI(seconds string, body []byte, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	out := append(make([]byte, 0, 96), "v1="...)
	var sum [sha256.Size]byte
	return string(hex.AppendEncode(out, mac.Sum(sum[:0])))
}

// standard is the value of webhook-signature: one signature for each secret.
func standard(id, seconds string, body []byte, secrets []string) string {
	out := make([]byte, 0, 48*len(secrets))
	prefix := []byte(id + "." + seconds + ".")
	var sum [sha256.Size]byte
	for i, secret := range secrets {
		if i > 0 {
			out = append(out, ' ')
		}
		mac := hmac.New(sha256.New, standardKey(secret))
		mac.Write(prefix)
		mac.Write(body)
		out = base64.StdEncoding.AppendEncode(append(out, "v1,"...), mac.Sum(sum[:0]))
	}
	return string(out)
}

// standardKey is what the Standard Webhooks libraries make of a secret; see the package comment.
func standardKey(secret string) []byte {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) == 0 {
		return []byte(secret)
	}
	return key
}
