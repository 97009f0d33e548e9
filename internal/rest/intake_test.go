package rest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unstuck/internal/op"
	"unstuck/internal/rest"
)

// tenant is a caller; its name is its key, and up to a "/" its workspace.
type tenant string

func (t tenant) Workspace() string { ws, _, _ := strings.Cut(string(t), "/"); return ws }
func (t tenant) KeyID() string     { return string(t) }

// tenants is a guard that lets in whoever names a tenant.
type tenants struct{}

func (tenants) Admit(ctx context.Context, c *op.Call) (context.Context, error) {
	name, ok := strings.CutPrefix(c.Auth, "Bearer ")
	switch {
	case ok:
		c.Caller = tenant(name)
	case c.Needs != op.Public:
		return nil, badKey.Msg("Send your key.")
	}
	return ctx, nil
}
func (tenants) Permit(context.Context, *op.Call) error    { return nil }
func (tenants) Fault(string) string                       { return "" }
func (tenants) Done(context.Context, *op.Call, *op.Error) {}

// pipes is a listener whose connections are pipes, so that a whole server runs on the clock of a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// receiver is a server in a bubble that takes bodies: at /keep from tenants, at /give from anybody.
type receiver struct {
	t     *testing.T
	pipes *pipes
}

func inBubble(t *testing.T, fn func(t *testing.T, s *receiver)) {
	synctest.Test(t, func(t *testing.T) {
		take := func(context.Context, none) (op.None, error) { return op.None{}, nil }
		keep := op.Spec{Name: "body.keep", Route: "POST /keep", Needs: op.AnyKey, Effect: op.Write, Open: true, May: "send", Doc: "Send"}
		give := keep
		give.Name, give.Route, give.Needs = "body.give", "POST /give", op.Public
		log := slog.New(slog.DiscardHandler)
		h := rest.New(rest.Options{Info: info(), Log: log, Set: op.NewSet(tenants{}, log, time.Now, op.Define(keep, take), op.Define(give, take))})
		s := &receiver{t, &pipes{make(chan net.Conn), make(chan struct{})}}
		srv := &http.Server{Handler: h, ReadTimeout: time.Minute}
		go func() { _ = srv.Serve(s.pipes) }()
		defer func() { _ = srv.Close(); <-time.After(time.Minute) }() // of the bubble: until everything has ended
		fn(t, s)
	})
}

// sending is a request under way.
type sending struct {
	conn   net.Conn
	sent   chan int // bytes that the server took, when it takes no more
	answer chan reply
}

type reply struct {
	*http.Response
	body  string
	after time.Duration // since the request began
}

// send begins a request of which only so many bytes of the body are sent. who is the tenant; "" for a stranger.
func (s *receiver) send(who, path string, announced, sent int) *sending {
	here, there := net.Pipe()
	s.pipes.conns <- there
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\n", path)
	if who != "" {
		head += "Authorization: Bearer " + who + "\r\n"
	}
	if head += fmt.Sprintf("Content-Length: %d\r\n\r\n", announced); announced < 0 {
		head = strings.Replace(head, "Content-Length: -1", "Transfer-Encoding: chunked", 1) + fmt.Sprintf("%x\r\n", sent)
	}
	x, began := &sending{here, make(chan int, 1), make(chan reply, 1)}, time.Now()
	go func() {
		n, _ := io.WriteString(here, head+strings.Repeat(" ", sent))
		x.sent <- n - len(head)
	}()
	go func() {
		defer close(x.answer)
		res, err := http.ReadResponse(bufio.NewReader(here), nil)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(res.Body)
		x.answer <- reply{res, string(body), time.Since(began)}
		_ = here.Close()
	}()
	synctest.Wait()
	return x
}

// wants reads the answer and when it came.
func (x *sending) wants(t *testing.T, status int, after time.Duration) reply {
	t.Helper()
	r, ok := <-x.answer
	if !ok {
		t.Fatal("no answer")
	}
	if r.StatusCode != status || r.after != after {
		t.Errorf("%d after %v, wanted %d after %v: %s", r.StatusCode, r.after, status, after, r.body)
	}
	return r
}

func (x *sending) waits(t *testing.T) {
	t.Helper()
	select {
	case r := <-x.answer:
		t.Fatalf("answered: %+v", r)
	default:
	}
}

// TestStrangersBodies: whoever shows no key is answered whatever of its body has come, and little of that is read.
func TestStrangersBodies(t *testing.T) {
	inBubble(t, func(t *testing.T, s *receiver) {
		var stalled []*sending
		for range 50 {
			stalled = append(stalled, s.send("", "/keep", op.MaxBody, op.MaxBody/2-1<<18-1))
		}
		for _, x := range stalled {
			if r := x.wants(t, 401, 2*time.Second); !r.Close {
				t.Error("the connection stays")
			}
		}
		long := s.send("", "/keep", op.MaxBody, op.MaxBody)
		if r := long.wants(t, 401, 0); !r.Close {
			t.Error("the connection stays")
		}
		if n := <-long.sent; n > 300<<10 {
			t.Errorf("%d bytes were read", n)
		}
		if r := s.send("", "/keep", 10_000, 10_000).wants(t, 401, 0); r.Close {
			t.Error("the connection of a small body that was sent is closed")
		}
	})
}

// TestSlowSenders get so long for their body, and strangers less where they may send one. What holds room must go on coming.
func TestSlowSenders(t *testing.T) {
	inBubble(t, func(t *testing.T, s *receiver) {
		for _, x := range []struct {
			who, path string
			announced int
			within    time.Duration
		}{{"a", "/keep", 4000, time.Minute}, {"a", "/keep", op.MaxBody, 5 * time.Second}, {"a", "/keep", -1, 30 * time.Second}, {"", "/give", op.MaxBody, 5 * time.Second}, {"", "/give", 100, 5 * time.Second}} {
			slow := s.send(x.who, x.path, x.announced, min(max(x.announced-1, 10), 10_000))
			if r := slow.wants(t, 400, x.within); !strings.Contains(r.body, "could not be read to its end") || !r.Close {
				t.Errorf("%s", r.body)
			}
		}
		s.send("", "/give", op.MaxBody, op.MaxBody).wants(t, 204, 0)
	})
}

// TestRoomForBodies: what large bodies take up together is bounded, for a key, for a workspace and for all; small ones need no room.
func TestRoomForBodies(t *testing.T) {
	inBubble(t, func(t *testing.T, s *receiver) {
		var held []*sending
		hold := func(who string, n, announced int) {
			for range n {
				held = append(held, s.send(who, "/keep", announced, 10_000))
			}
		}
		hold("a/1", 4, op.MaxBody)
		more := s.send("a/1", "/keep", op.MaxBody, op.MaxBody)
		more.waits(t)
		s.send("a/2", "/keep", op.MaxBody, op.MaxBody).wants(t, 204, 0)
		s.send("a/1", "/keep", 4000, 4000).wants(t, 204, 0)
		hold("a/2", 4, op.MaxBody)
		hold("a/3", 4, op.MaxBody)
		hold("a/4", 4, op.MaxBody)
		full := s.send("a/5", "/keep", op.MaxBody, op.MaxBody)
		full.waits(t)
		s.send("b", "/keep", op.MaxBody, op.MaxBody).wants(t, 204, 0)
		<-time.After(4 * time.Second)
		_ = held[0].conn.Close()
		more.wants(t, 204, 4*time.Second)
		full.wants(t, 204, 4*time.Second)
	})
}

// TestRoomIsLeft: workspaces that take all they can get leave room for the bodies of others, whether they announce a length or not, and
// what does not come on gives its room back.
func TestRoomIsLeft(t *testing.T) {
	for _, announced := range []int{op.MaxBody, -1} {
		inBubble(t, func(t *testing.T, s *receiver) {
			var held []*sending
			for _, ws := range []string{"a", "b", "c", "d"} {
				for i := range 16 {
					held = append(held, s.send(fmt.Sprintf("%s/%d", ws, i), "/keep", announced, 10_000))
				}
			}
			for range 10 {
				s.send("e", "/keep", 6000, 6000).wants(t, 204, 0)
				s.send("e", "/keep", op.MaxBody, op.MaxBody).wants(t, 204, 0)
			}
			s.send("a/0", "/keep", 4000, 4000).wants(t, 204, 0)
			for _, x := range held {
				r := <-x.answer
				if r.Response == nil || r.StatusCode != 400 && r.StatusCode != 503 || !r.Close {
					t.Errorf("a slow sender got %+v", r)
				}
			}
			s.send("a/0", "/keep", op.MaxBody, op.MaxBody).wants(t, 204, 0)
		})
	}
}

// TestRoomGrows: a body of unknown length takes room as it comes, and one that is sent in pieces that come in time is read.
func TestRoomGrows(t *testing.T) {
	inBubble(t, func(t *testing.T, s *receiver) {
		for range 20 {
			s.send("a", "/keep", -1, 10_000)
		}
		s.send("a", "/keep", op.MaxBody, op.MaxBody).wants(t, 204, 0)
		steady := s.send("b", "/keep", op.MaxBody, 64<<10)
		for range 7 {
			<-time.After(4 * time.Second)
			_, _ = io.WriteString(steady.conn, strings.Repeat(" ", 64<<10))
		}
		_, _ = io.WriteString(steady.conn, strings.Repeat(" ", op.MaxBody-8*64<<10))
		steady.wants(t, 204, 28*time.Second)
	})
}
