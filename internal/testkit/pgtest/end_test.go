package pgtest

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// report is a test that only notes how it ended.
type report struct {
	testing.TB
	ended string
}

func (r *report) Helper()           {}
func (r *report) Skip(args ...any)  { r.end("skipped: ", args) }
func (r *report) Fatal(args ...any) { r.end("failed: ", args) }

func (r *report) end(how string, args []any) {
	r.ended = how + fmt.Sprint(args...)
	runtime.Goexit()
}

func TestOnlyAMachineWithoutPostgreSQLSkips(t *testing.T) {
	broken := errors.New("it does not start")
	for _, c := range []struct {
		err  error
		ci   bool
		want string
	}{
		{errMissing, false, "skipped: PostgreSQL is not installed"},
		{errMissing, true, "failed: PostgreSQL is not installed"},
		{broken, false, "failed: it does not start"},
		{broken, true, "failed: it does not start"},
	} {
		r := &report{TB: t}
		var wg sync.WaitGroup
		wg.Go(func() { end(r, c.err, c.ci) })
		wg.Wait()
		if !strings.HasPrefix(r.ended, c.want) {
			t.Errorf("%v, CI %t: %s", c.err, c.ci, r.ended)
		}
	}
}
