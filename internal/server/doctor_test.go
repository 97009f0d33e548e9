package server_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unstuck/internal/server"
)

// TestDoctor finds what is wrong and says how to mend it; on a sound server it finds nothing.
func TestDoctor(t *testing.T) {
	wrong := func(s server.Settings) (out []string) {
		for _, f := range server.Doctor(context.Background(), s, server.Look{Now: time.Now()}) {
			if f.Err != nil {
				out = append(out, f.What+": "+f.Err.Error())
				if f.Mend == "" {
					t.Errorf("%s has no mend", f.What)
				}
			}
		}
		return out
	}
	set, _ := made(t)
	if got := wrong(set); got != nil {
		t.Errorf("a sound server: %v", got)
	}
	behind := server.Doctor(context.Background(), set, server.Look{Now: time.Now().Add(-time.Hour)})
	if f := behind[len(behind)-1]; f.What != "clock" || f.Err == nil || !strings.Contains(f.Err.Error(), "was written") {
		t.Errorf("a clock that is an hour late: %+v", f)
	}
	for _, f := range server.Doctor(context.Background(), set, server.Look{Now: time.Now().Add(-time.Hour), Quick: true}) {
		if f.Err != nil || f.What == "audit log" {
			t.Errorf("a quick look opens no database: %+v", f)
		}
	}
	if err := os.Chmod(set.Data, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := wrong(set); len(got) != 1 || !strings.Contains(got[0], "others may read it") {
		t.Errorf("an open folder: %v", got)
	}
	set.Listen = "0.0.0.0:80"
	if got := wrong(set); len(got) != 2 {
		t.Errorf("and an exposed address: %v", got)
	}
	for _, wide := range []string{"0.0.0.0/0", "::/0", "169.254.0.0/16"} {
		set.AllowCallbacks = wide
		if got := wrong(set); len(got) != 3 {
			t.Errorf("and callbacks to %s: %v", wide, got)
		}
	}
	if got := wrong(settings(t, "data", filepath.Join(t.TempDir(), "none"))); len(got) != 1 {
		t.Errorf("no data: %v", got)
	}
	file := filepath.Join(set.Data, "secret")
	all := server.Doctor(context.Background(), settings(t, "data", file), server.Look{Now: time.Now()})
	if f := all[len(all)-1]; f.Err == nil || strings.Contains(f.Mend, file) {
		t.Errorf("a file for the data, whose rights are nobody's business: %+v", f)
	}
}
