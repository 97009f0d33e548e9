package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"unstuck/internal/server"
)

// runServer runs a server until the function it returns is called, and answers its address without the scheme.
func runServer(t *testing.T, set server.Settings) (address string, out *shown, stop func()) {
	t.Helper()
	out = &shown{ready: make(chan string, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, set, server.Streams{Out: io.Discard, Err: out, ErrTTY: true, Zone: time.UTC})
	}()
	select {
	case address = <-out.ready:
	case err := <-ended:
		t.Fatal(err)
	}
	return strings.TrimPrefix(address, "http://"), out, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// caller is one connection, kept open.
type caller struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, network, address string) caller {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return caller{c, bufio.NewReader(c)}
}

// ask makes a call, or only waits for the answer of one that was made.
func (c caller) ask(t *testing.T, again bool) error {
	t.Helper()
	if again {
		if _, err := fmt.Fprint(c, "GET /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return err
		}
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

// TestMaxConnections: when as many connections are open as may be, a further one is answered as soon as one of them closes. The
// local socket goes on.
func TestMaxConnections(t *testing.T) {
	set := settings(t, "listen", "127.0.0.1:0", "max-connections", "2")
	address, _, stop := runServer(t, set)
	defer stop()
	first, second, third := dial(t, "tcp", address), dial(t, "tcp", address), dial(t, "tcp", address)
	defer second.Close()
	defer third.Close()
	for _, c := range []caller{first, second} {
		if err := c.ask(t, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := third.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := third.ask(t, true); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a third connection: %v", err)
	}
	local := dial(t, "unix", set.Socket())
	defer local.Close()
	if err := local.ask(t, true); err != nil {
		t.Errorf("the local socket: %v", err)
	}
	if err := second.ask(t, true); err != nil {
		t.Error(err)
	}
	_ = first.Close()
	if err := third.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := third.ask(t, false); err != nil {
		t.Errorf("the third connection, when there is room: %v", err)
	}
}

// TestMaxConnectionsFitTheFileLimit: more connections than the process may open files are not promised, and that is said.
func TestMaxConnectionsFitTheFileLimit(t *testing.T) {
	_, out, stop := runServer(t, settings(t, "listen", "127.0.0.1:0", "max-connections", "3000000000"))
	stop()
	if text := out.String(); !strings.Contains(text, "fewer connections than UNSTUCK_MAX_CONNECTIONS") || !strings.Contains(text, "ulimit -n") {
		t.Error(text)
	}
	for _, bad := range []string{"0", "-1", "many", ""} {
		_, err := server.ReadSettings(func(string) (string, bool) { return "", false }, map[string]string{"max-connections": bad}, "/home/x")
		if err == nil || !strings.Contains(err.Error(), "--max-connections") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
