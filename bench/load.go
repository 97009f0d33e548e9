// Package bench holds load runs over HTTP. `make bench` runs them and prints the figures of docs/performance.md, each with its floor
// measured in the same run.
package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Conn is one connection that is kept, and as little client as possible: what is measured is the server.
type Conn struct {
	c net.Conn
	r *bufio.Reader
}

// Dial opens a connection to a server address, "127.0.0.1:8080".
func Dial(addr string) (*Conn, error) {
	c, err := net.Dial("tcp", addr) //nolint:noctx // a load run ends by itself
	if err != nil {
		return nil, err
	}
	return &Conn{c, bufio.NewReaderSize(c, 16<<10)}, nil
}

// Request is the bytes of one request.
func Request(method, path, key string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, path)
	if key != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", key)
	}
	if body != nil {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// Do sends one request and reads its answer into buf.
func (c *Conn) Do(request, buf []byte) (status int, body []byte, err error) {
	if _, err := c.c.Write(request); err != nil {
		return 0, nil, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil || len(line) < 12 {
		return 0, nil, fmt.Errorf("read the status line: %w", err)
	}
	status, length := int(line[9]-'0')*100+int(line[10]-'0')*10+int(line[11]-'0'), 0
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, fmt.Errorf("read a header: %w", err)
		}
		if len(line) <= 2 {
			break
		}
		if len(line) > 16 && strings.EqualFold(string(line[:15]), "Content-Length:") {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[15:]))); err != nil {
				return 0, nil, fmt.Errorf("read a length: %w", err)
			}
		}
	}
	if cap(buf) < length {
		buf = make([]byte, length)
	}
	_, err = io.ReadFull(c.r, buf[:length])
	return status, buf[:length], err
}

// Close ends the connection.
func (c *Conn) Close() { _ = c.c.Close() }

// Result is what a load run measured.
type Result struct {
	N        int
	Took     time.Duration
	P50, P99 time.Duration
}

// PerSecond is the throughput.
func (r Result) PerSecond() float64 { return float64(r.N) / r.Took.Seconds() }

// Run lets callers work at the same time for a while. work does one unit and is called again and again; it gets the caller's number.
func Run(callers int, during time.Duration, work func(caller int, c *Conn) error, addr string) (Result, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wait sync.WaitGroup
	began := time.Now()
	end := began.Add(during)
	for i := range callers {
		wait.Go(func() {
			c, err := Dial(addr)
			var took []time.Duration
			for err == nil && time.Now().Before(end) {
				at := time.Now()
				if err = work(i, c); err == nil {
					took = append(took, time.Since(at))
				}
			}
			if c != nil {
				c.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil && failed == nil {
				failed = err
			}
		})
	}
	wait.Wait()
	r := Result{N: len(all), Took: time.Since(began)}
	if len(all) > 0 {
		slices.Sort(all)
		r.P50, r.P99 = all[len(all)/2], all[len(all)*99/100]
	}
	return r, failed
}
