package server

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"unstuck/internal/op"
)

// local answers on the socket in the data folder, which only its owner can open: whoever may read the folder is an admin. The
// command line speaks to it.
//
//	POST /login     {"name","workspace"}    → {"key","redacted","workspace","url"}
//	POST /secret    {}                      → SecretStatus, after adding a server secret
//	GET  /secret                            → SecretStatus
//	GET  /settings                          → values by the names of the settings; of secrets only that they are set
//	GET  /checks                            → []Checked
//	POST /set-plan  {"workspace","plan"}    → Workspace
func (s *Server) local() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", answer(func(r *http.Request, in struct{ Name, Workspace string }) (any, error) {
		key, workspace, err := s.access.LocalLogin(r.Context(), in.Name, in.Workspace)
		return LocalLogin{key.Secret, key.Redacted, workspace, s.localURL()}, err
	}))
	mux.HandleFunc("POST /secret", answer(func(r *http.Request, _ struct{}) (any, error) { return s.access.RotateServerSecret(r.Context()) }))
	mux.HandleFunc("GET /secret", answer(func(r *http.Request, _ struct{}) (any, error) { return s.access.SecretStatus(r.Context()) }))
	mux.HandleFunc("GET /settings", answer(func(*http.Request, struct{}) (any, error) { return s.shown(), nil }))
	mux.HandleFunc("GET /checks", answer(func(r *http.Request, _ struct{}) (any, error) { return s.checks(r.Context()), nil }))
	mux.HandleFunc("POST /set-plan", answer(func(r *http.Request, in struct{ Workspace, Plan string }) (any, error) {
		return s.access.SetPlan(r.Context(), in.Workspace, in.Plan)
	}))
	return mux
}

// LocalLogin is a new personal key of an admin, given through the local socket.
type LocalLogin struct {
	Key       string `json:"key"`
	Redacted  string `json:"redacted"`
	Workspace string `json:"workspace"`
	URL       string `json:"url" doc:"where it is reached from this machine"`
}

// url is how this server is reached.
func (s *Server) url() string {
	switch {
	case s.Domain != "":
		return "https://" + s.Domain
	case s.TLSCert != "":
		return "https://" + s.Listen
	}
	return "http://" + s.Listen
}

// localURL is how this server is reached on its machine: an address that stands for all of the machine's is no address to call.
func (s *Server) localURL() string {
	host, port, _ := net.SplitHostPort(s.Listen) // was checked
	if a, err := netip.ParseAddr(host); s.Domain == "" && (host == "" || err == nil && a.IsUnspecified()) {
		return strings.Replace(s.url(), s.Listen, "127.0.0.1:"+port, 1)
	}
	return s.url()
}

func answer[In any](fn func(*http.Request, In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodPost {
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, op.MaxBody)).Decode(&in); err != nil {
				writeError(w, op.InvalidJSON.Msg("The body is not JSON: %v.", err))
				return
			}
		}
		out, err := fn(r, in)
		if err != nil {
			e := op.AsError(err)
			if e.Code == op.Internal { // on this socket the caller is whoever runs the server
				e = op.Internal.Msg("%v", err)
			}
			writeError(w, e)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(op.Marshal(out)) // whoever went away needs no answer
	}
}

func writeError(w http.ResponseWriter, e *op.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.Status)
	_, _ = w.Write(e.Body("", "")) // whoever went away needs no answer
}
