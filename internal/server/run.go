package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/net/netutil"

	"unstuck/internal/disk"
)

// Streams are where a server speaks to people.
type Streams struct {
	Out, Err io.Writer
	OutTTY   bool // Out is a terminal
	ErrTTY   bool
	Home     string // home folder, to shorten paths
	Zone     *time.Location
}

const (
	stopWithin     = 10 * time.Second // calls under way get so long to end
	headerWithin   = 10 * time.Second
	readWithin     = time.Minute     // a request with its body; also the longest that a call can wait
	writeWithin    = 2 * time.Minute // and its answer
	idleFor        = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	http2Buffer    = 128 << 10 // what a connection may send ahead of what is read of it; by default a stranger could store 1 MiB so

	acmeConnections = 100 // on port 80, at the same time
	spareFiles      = 200 // of the process, for everything but connections of callers: port 80, the local socket, database, files
)

// connections is how many the server holds at the same time; when there are more, new ones wait to be accepted. It is the setting,
// or less when the process may not open so many files, which is said.
func (s *Server) connections() int {
	n, most := int64(s.MaxConnections), openFiles()
	if fit := max(most-spareFiles, 1); most > 0 && n > fit {
		s.deps.Log.Warn("fewer connections than UNSTUCK_MAX_CONNECTIONS: this process may not open so many files. Raise its limit (ulimit -n, LimitNOFILE=), or set a lower number",
			"connections", fit, "wanted", n, "files", most)
		n = fit
	}
	return int(n)
}

// Run starts a server and runs it until ctx ends; then calls under way end, and what memory holds is written.
func Run(ctx context.Context, settings Settings, io Streams) error {
	began := time.Now()
	disk.NewFilesPrivate()
	if err := settings.checkListen(); err != nil {
		return err
	}
	log := NewLog(io.Err, io.ErrTTY, settings.LogLevel)
	s, err := Open(ctx, settings, Deps{Now: time.Now, Log: log})
	if err != nil {
		return err
	}
	listeners, err := s.listen()
	if err != nil {
		return errors.Join(err, s.Close())
	}
	if err := s.announce(ctx, io, listeners[0].Addr().String(), began); err != nil {
		return errors.Join(err, s.Close())
	}
	return s.serve(ctx, listeners, log)
}

// listen opens every socket: the one for callers, the local one, and ACME's.
func (s *Server) listen() ([]net.Listener, error) {
	config, acme, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	addr := s.Listen
	if acme != nil {
		addr = ":443"
	}
	main, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w. Is another server running? Choose another address with --listen", addr, err)
	}
	main = netutil.LimitListener(main, s.connections())
	if config != nil {
		main = tls.NewListener(main, config)
	}
	local, err := s.listenLocal()
	if err != nil {
		return nil, errors.Join(err, main.Close())
	}
	all := []net.Listener{main, local}
	if acme != nil {
		plain, err := net.Listen("tcp", ":80")
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen on port 80 for ACME: %w", err), main.Close(), local.Close())
		}
		all = append(all, netutil.LimitListener(plain, acmeConnections))
	}
	return all, nil
}

func (s *Server) listenLocal() (net.Listener, error) {
	path := s.Socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a server that was killed; the lock says that none runs
		return nil, fmt.Errorf("remove an old local socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the local socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the local socket: %w", err), l.Close())
	}
	return l, nil
}

func (s *Server) serve(ctx context.Context, listeners []net.Listener, log *slog.Logger) error {
	handlers := []http.Handler{s.handler, s.local()}
	if len(listeners) > 2 {
		_, acme, err := s.tlsConfig()
		if err != nil {
			return err
		}
		handlers = append(handlers, acme)
	}
	duties, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Duties(duties) }()
	calls, cancelCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelCalls()
	failed := make(chan error, len(listeners))
	servers := make([]*http.Server, len(listeners))
	for i, l := range listeners {
		servers[i] = &http.Server{
			Handler: handlers[i], ReadHeaderTimeout: headerWithin, ReadTimeout: readWithin, WriteTimeout: writeWithin, IdleTimeout: idleFor, MaxHeaderBytes: maxHeaderBytes,
			HTTP2:       &http.HTTP2Config{MaxReceiveBufferPerConnection: http2Buffer, MaxReceiveBufferPerStream: http2Buffer},
			BaseContext: func(net.Listener) context.Context { return calls }, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		}
		go func() { failed <- servers[i].Serve(l) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, s.stop(servers, cancelCalls, stop, ended))
}

// stop ends the calls under way: those that wait are told at once, the others get their time. Then duties end and the rest of
// memory is written.
func (s *Server) stop(servers []*http.Server, cancelCalls, stopDuties context.CancelFunc, ended chan error) error {
	s.cues.EndStreams()
	within, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	hurry := time.AfterFunc(stopWithin/10, cancelCalls)
	defer hurry.Stop()
	var errs []error
	for _, srv := range servers {
		if err := srv.Shutdown(within); err != nil {
			errs = append(errs, srv.Close())
		}
	}
	stopDuties()
	errs = append(errs, <-ended, s.note(context.Background(), stoppedAt), s.Close())
	return errors.Join(errs...)
}
