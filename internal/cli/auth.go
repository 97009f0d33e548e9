package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// authCommand is `unstuck auth`: who you are at a terminal.
func (d *door) authCommand() *cobra.Command {
	auth := &cobra.Command{Use: "auth", GroupID: "you", Short: "Log in, see which key is used, log out", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	login := &cobra.Command{Use: "login", Short: "Store a key for this user", Args: noArgs,
		Long:    "Asks for a key, checks it against its server, and stores it in ~/.unstuck/credentials, readable by you only.",
		Example: "  unstuck auth login\n  unstuck auth login --url https://unstuck.example.com\n  unstuck auth login --local"}
	local := login.Flags().Bool("local", false, "get a new personal key of an admin, on the machine of the server, from whoever may read its data folder")
	workspace := login.Flags().String("workspace", "", "with --local: slug of the workspace whose admin you become (default: the oldest)")
	data := login.Flags().String("data", "", "the server's data folder (default: $UNSTUCK_DATA, or ~/.unstuck/server)")
	login.RunE = func(cmd *cobra.Command, _ []string) error {
		if *local {
			return d.loginLocal(cmd.Context(), *data, *workspace)
		}
		return d.login(cmd.Context())
	}
	auth.AddCommand(login,
		&cobra.Command{Use: "status", Short: "Say which key is used, where it comes from, and what it hides", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return d.authStatus(cmd.Context()) }},
		&cobra.Command{Use: "logout", Short: "Forget the stored key", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return d.logout() }},
	)
	return auth
}

// login asks for a key, checks it, and stores it.
func (d *door) login(ctx context.Context) error {
	address, err := cleanURL(firstOf(d.flags.url, d.Getenv(urlVar), defaultURL))
	if err != nil {
		return err
	}
	d.say("Server  %s", address)
	var key string
	if d.flags.keyFile != "" {
		key, err = d.readKeyFile(d.flags.keyFile)
	} else {
		key, err = d.askSecret("Key     (paste it; it is not shown) ")
	}
	if err != nil {
		return err
	}
	return d.store(ctx, login{URL: address, Key: key})
}

// whoami is what the command line tells a caller about itself.
type whoami struct {
	Email string `json:"email"`
	Slug  string `json:"slug"`
	Role  string `json:"role"`
	Plan  string `json:"plan"`
	// HandedOver says that somebody else was shown the key.
	HandedOver bool `json:"handed_over"`
}

// use makes a login the one that is asked with, and says which key it is.
func (d *door) use(ctx context.Context, l login) (keyView, error) {
	d.asked = newClient(place{url: l.URL, key: l.Key, source: "what was pasted"}, d.flags.plainHTTP)
	return get[keyView](ctx, d, "key.self", nil)
}

// store checks a login with its server and stores it.
func (d *door) store(ctx context.Context, l login) error {
	k, err := d.use(ctx, l)
	if err != nil {
		return err
	}
	me, err := get[whoami](ctx, d, "me.get", nil)
	if err != nil {
		return err
	}
	if err := d.writeLogin(l); err != nil {
		return err
	}
	note := ""
	if me.HandedOver {
		k, note = d.takeOver(ctx, l, k)
	}
	d.say("Logged in: workspace %s, key %s, %s, %s.", me.Slug, k.Redacted, scopeWords(k.Scope), d.until(&k))
	d.say("Stored in %s, readable by you only.", d.tilde(d.loginPath()))
	if note != "" {
		d.say("%s", note)
	}
	if d.Getenv(keyVar) != "" {
		d.say("\nNote: %s is set and hides this login. To use it: unset %s", keyVar, keyVar)
	}
	return nil
}

// takeOver gives a key that was handed over another secret and stores it, so that whoever handed it over knows it no longer, and says so
// in a line. The old secret ends with the first use of the new one, which follows at once; so whatever fails on the way, the login that
// is stored works.
func (d *door) takeOver(ctx context.Context, l login, k keyView) (keyView, string) {
	made, err := get[keyView](ctx, d, "key.rotate", inputs{"id": k.ID, "overlap": "0s"})
	if err == nil {
		l.Key = made.Secret
		err = d.writeLogin(l)
	}
	if err != nil {
		return k, fmt.Sprintf("Note: whoever handed this key over still knows it. It could not be replaced: %s.", lowerFirst(firstLine(err)))
	}
	if used, err := d.use(ctx, l); err == nil {
		return used, "The key that was handed over to you was replaced: it has ended, and only you have the new one."
	}
	return made, "The key that was handed over to you was replaced; it ends as soon as the new one, which only you have, is used."
}

// loginLocal gets a key from the server on this machine, through the socket in its data folder.
func (d *door) loginLocal(ctx context.Context, data, workspace string) error {
	var got struct{ Key, URL string }
	host, _ := os.Hostname() // for the name only
	name := strings.TrimSuffix("local login at "+host, " at ")
	if err := d.askLocal(ctx, data, "POST", "/login", map[string]string{"name": name, "workspace": workspace}, &got); err != nil {
		return err
	}
	address, err := cleanURL(firstOf(d.flags.url, got.URL))
	if err != nil {
		return err
	}
	return d.store(ctx, login{URL: address, Key: got.Key})
}

// dataFolder is where the server keeps its data, unless a flag says otherwise.
func (d *door) dataFolder(flag string) string {
	folder := firstOf(flag, d.Getenv("UNSTUCK_DATA"), d.home("server"))
	if rest, ok := strings.CutPrefix(folder, "~/"); ok {
		return d.home("..", rest)
	}
	return folder
}

// askLocal speaks to a running server through the socket in its data folder. A server that does not run is said so.
func (d *door) askLocal(ctx context.Context, data, method, path string, in, out any) error {
	folder := d.dataFolder(data)
	socket := folder + "/local.sock"
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	c := &client{http: &http.Client{Transport: transport, Timeout: time.Minute}}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://local"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	status, answered, requestID, err := c.send(req)
	switch {
	case err != nil && errors.Is(socketError(socket), os.ErrPermission):
		return failure(exitRefused, "Refused: you may not open %s. Its owner, who runs the server, may.", d.tilde(socket))
	case err != nil:
		return failure(exitUnreachable, "Not reached: no server runs on the data in %s.\n\n"+
			"  start it  unstuck serve\n  elsewhere unstuck … --data FOLDER", d.tilde(folder))
	case status >= 300:
		return c.refused(nil, &answer{status: status, body: answered}, requestID)
	}
	if err := json.Unmarshal(answered, out); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// socketError is why a socket cannot be opened; nil when it can.
func socketError(path string) error {
	c, err := net.Dial("unix", path)
	if err == nil {
		err = c.Close()
	}
	return err
}

// authStatus says which key is used, where it comes from, and what that hides.
func (d *door) authStatus(ctx context.Context) error {
	c, err := d.client()
	if err != nil {
		return err
	}
	d.print("Server  %s", c.url)
	if c.key == "" {
		d.print("Key     none: not logged in")
		return failure(exitLogin, "\n  log in    unstuck auth login       or, on the machine of the server: unstuck auth login --local")
	}
	d.print("Key     from %s", c.source)
	if c.hides != "" {
		d.print("Hides   the login for %s in %s", c.hides, d.tilde(d.loginPath()))
	}
	if c.file && d.Getenv(urlVar) != "" {
		d.print("Note    %s says the same address as the login", urlVar)
	}
	k, err := get[keyView](ctx, d, "key.self", nil)
	if err != nil {
		return err
	}
	me, err := get[whoami](ctx, d, "me.get", nil)
	if err != nil {
		return err
	}
	d.print("You     %s", you(&k, me))
	d.print("        %s  %s, %s, %s", k.Name, k.Redacted, scopeWords(k.Scope), d.until(&k))
	return nil
}

// you is who a key stands for: a member, or a program's key of a member.
func you(k *keyView, me whoami) string {
	if k.Kind == "personal" {
		return fmt.Sprintf("%s, %s of workspace %s", me.Email, me.Role, me.Slug)
	}
	return fmt.Sprintf("key %s of workspace %s, which belongs to %s", k.Name, me.Slug, me.Email)
}

// logout forgets the stored key. The key itself goes on.
func (d *door) logout() error {
	l, err := d.readLogin()
	if err != nil {
		return err
	}
	if l == nil {
		d.say("Not logged in: there is no %s.", d.tilde(d.loginPath()))
		return nil
	}
	if err := os.Remove(d.loginPath()); err != nil {
		return fmt.Errorf("forget the login: %w", err)
	}
	d.say("Logged out of %s. The key still works; whoever manages keys ends it: unstuck keys revoke %s", l.URL, lastEight(l.Key))
	if d.Getenv(keyVar) != "" {
		d.say("%s is still set and goes on being used.", keyVar)
	}
	return nil
}
