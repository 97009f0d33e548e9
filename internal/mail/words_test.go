package mail

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestNoEncryptionInWords: a mail server without STARTTLS is told with the setting that mends it, not in the words of the library.
func TestNoEncryptionInWords(t *testing.T) {
	s := &Sender{}
	got := s.words(context.Background(), errors.New(`dial failed: STARTTLS mode set to: "TLSMandatory", but target host does not support STARTTLS`)).Error()
	if !strings.Contains(got, "UNSTUCK_SMTP_TLS") || strings.Contains(got, "TLSMandatory") {
		t.Error(got)
	}
}
