package alert

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/mail"
	"unstuck/internal/op"
)

// Kinds of channels. A workspace has at most one of each.
const (
	byWebhook = "webhook"
	byEmail   = "email"
)

func kinds() []string { return []string{byWebhook, byEmail} }

// Codes of channels.
var (
	InvalidWebhookURL = op.Code{Status: 400, Name: "invalid_alert_webhook_url", Doc: "Alerts cannot be sent to this address; the message says why. Use a public address that begins with https://."}
	InvalidEmail      = op.Code{Status: 400, Name: "invalid_alert_email", Doc: "This is no e-mail address. Write one like ops@example.com."}
	NoMail            = op.Code{Status: 400, Name: "mail_not_configured", Doc: "This server sends no mail. Whoever runs it sets UNSTUCK_SMTP_HOST; until then use a webhook."}
	NoChannel         = op.Code{Status: 404, Name: "alert_channel_not_found", Doc: "No such channel is set, so alerts go nowhere by it. Set one: `unstuck alerts set webhook https://…`."}
	NoFields          = op.Code{Status: 422, Name: "no_fields", Doc: "The call changes nothing. Give at least one field."}
)

// channel is where alerts of a workspace go.
type channel struct {
	kind, address, fault string
	set                  op.Time
	proved, good, failed *op.Time
}

func (c *channel) scan(r scanner) error {
	return r.Scan(&c.kind, &c.address, &c.set, &c.proved, &c.good, &c.failed, &c.fault)
}

func readChannels(tx *db.Tx, workspace string) (out []channel, err error) {
	rows, err := tx.Query(sqlChannels, workspace)
	if err != nil {
		return nil, fmt.Errorf("read the channels of alerts: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c channel
		if err := c.scan(rows); err != nil {
			return nil, fmt.Errorf("read the channels of alerts: %w", err)
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// shown is an address as people may see it: who knows that of a chat's webhook can write there, so its path is left out.
func shown(kind, address string) string {
	if kind != byWebhook {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "…"
	}
	return u.Scheme + "://" + u.Host + "/…"
}

// ChannelObject is a channel on the wire.
type ChannelObject struct {
	Channel      string   `json:"channel" doc:"webhook or email"`
	Address      *string  `json:"address" doc:"of a webhook without its path, which may be a secret; null when none is set"`
	SetAt        *op.Time `json:"set_at"`
	ProvedAt     *op.Time `json:"proved_at" doc:"when this address took a test message last; null: nobody knows that alerts arrive"`
	GoodAt       *op.Time `json:"last_delivered_at" doc:"when it took a message last"`
	FailingSince *op.Time `json:"failing_since" doc:"null while it takes messages"`
	Error        string   `json:"error" doc:"why it did not take the last one; empty when it did"`
	Blocked      string   `json:"blocked" doc:"why this server, as it is set up now, can send nothing to it; empty when it can. Looked up by alert_channel.list only"`
	Waiting      int64    `json:"waiting" doc:"alerts that are sent, or sent again, later"`
	Lost         int64    `json:"lost" doc:"alerts that were given up since it took anything last"`
}

// Watch is the outside watch that hears of the server while it works (UNSTUCK_HEARTBEAT_URL).
type Watch struct {
	Host   string   `json:"host"`
	LastAt *op.Time `json:"last_at" doc:"when it answered well last; null for never"`
	Error  string   `json:"error" doc:"why it was not called, or did not answer well; empty when it did"`
}

type channelList struct {
	Channels []ChannelObject `json:"channels"`
	Mail     bool            `json:"mail" doc:"this server can send mail"`
	Watch    *Watch          `json:"outside_watch" doc:"who notices when this server stands still; null for nobody"`
}

func (a *Alerts) channels(ctx context.Context, _ struct{}) (out channelList, err error) {
	var set []channel
	err = a.DB.View(ctx, func(tx *db.Tx) (err error) {
		out = channelList{Channels: []ChannelObject{}, Mail: a.Mail.On()}
		if set, err = readChannels(tx, access.From(ctx).Workspace()); err != nil {
			return err
		}
		for _, kind := range kinds() {
			o := ChannelObject{Channel: kind}
			for i := range set {
				if c := &set[i]; c.kind == kind {
					if err := o.fill(tx, access.From(ctx).Workspace(), c); err != nil {
						return err
					}
				}
			}
			out.Channels = append(out.Channels, o)
		}
		return nil
	})
	for i := range set { // outside of the transaction: names are looked up
		for j := range out.Channels {
			if out.Channels[j].Channel != set[i].kind {
				continue
			}
			if _, bad := a.checked(ctx, set[i].kind, set[i].address); bad != nil {
				out.Channels[j].Blocked = sentence(bad)
			}
		}
	}
	if a.Watch != nil {
		out.Watch = a.Watch()
	}
	return out, err
}

// sentence is what a refusal says to people.
func sentence(err error) string {
	var e *op.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

func (o *ChannelObject) fill(tx *db.Tx, workspace string, c *channel) error {
	address, since := shown(c.kind, c.address), c.set
	o.Address, o.SetAt, o.ProvedAt, o.GoodAt, o.FailingSince, o.Error = &address, &c.set, c.proved, c.good, c.failed, c.fault
	if c.good != nil {
		since = max(since, *c.good)
	}
	if err := tx.Row(sqlWaiting, workspace, c.kind, countMost).Scan(&o.Waiting); err != nil {
		return fmt.Errorf("count alerts that wait: %w", err)
	}
	if err := tx.Row(sqlLost, workspace, c.kind, since, countMost).Scan(&o.Lost); err != nil {
		return fmt.Errorf("count alerts that were given up: %w", err)
	}
	return nil
}

type channelSet struct {
	Channel string `json:"channel" enum:"webhook|email"`
	Address string `json:"address" min:"1" max:"2083" doc:"of a webhook: an https:// address, also one that Slack, Mattermost or Discord gave you; of email: ops@example.com"`
}

// setChannel says where alerts go. Another address must be proved anew.
func (a *Alerts) setChannel(ctx context.Context, in channelSet) (ChannelObject, error) {
	address, err := a.checked(ctx, in.Channel, in.Address)
	if err != nil {
		return ChannelObject{}, err
	}
	return a.putChannel(ctx, in.Channel, address)
}

// resolveWithin is how long the name of an address may take to be found.
const resolveWithin = 5 * time.Second

// checked is an address in the form that is kept, or what is wrong with it.
func (a *Alerts) checked(ctx context.Context, kind, address string) (string, error) {
	if kind == byWebhook {
		ctx, cancel := context.WithTimeout(ctx, resolveWithin)
		defer cancel()
		if err := a.Callbacks.Check(ctx, address); err != nil {
			return "", InvalidWebhookURL.Msg("%v", err)
		}
		return address, nil
	}
	if !a.Mail.On() {
		return "", NoMail.Msg("This server sends no mail: whoever runs it sets UNSTUCK_SMTP_HOST. Until then, set a webhook.")
	}
	bare, err := mail.Address(address)
	if err != nil {
		return "", InvalidEmail.Msg("%v", err)
	}
	return bare, nil
}

func (a *Alerts) putChannel(ctx context.Context, kind, address string) (out ChannelObject, err error) {
	workspace := access.From(ctx).Workspace()
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		changed, err := tx.Exec(sqlChannelPut, workspace, kind, address, a.now())
		if err != nil {
			return fmt.Errorf("set a channel of alerts: %w", err)
		}
		set, err := readChannels(tx, workspace)
		if err != nil {
			return err
		}
		out = ChannelObject{Channel: kind}
		for i := range set {
			if set[i].kind == kind {
				if err := out.fill(tx, workspace, &set[i]); err != nil {
					return err
				}
			}
		}
		if changed == 0 {
			access.Unchanged(tx)
			return nil
		}
		return access.Record(tx, access.Event{Object: "alert_channel", ID: kind, Name: shown(kind, address)})
	})
	return out, err
}

type channelRef struct {
	Channel string `json:"channel" enum:"webhook|email"`
}

func (a *Alerts) removeChannel(ctx context.Context, in channelRef) (op.None, error) {
	err := a.DB.Update(ctx, func(tx *db.Tx) error {
		n, err := a.dropChannel(tx, access.From(ctx).Workspace(), in.Channel)
		if err == nil && n == 0 {
			return NoChannel.Msg("No %s is set for alerts.", in.Channel)
		}
		return err
	})
	return op.None{}, err
}

// dropChannel ends a channel, and what waits to be sent by it.
func (a *Alerts) dropChannel(tx *db.Tx, workspace, kind string) (int64, error) {
	n, err := tx.Exec(sqlChannelDrop, workspace, kind)
	if err == nil && n > 0 {
		_, err = tx.Exec(sqlSendsDrop, workspace, kind)
		err = errors.Join(err, access.Record(tx, access.Event{Object: "alert_channel", ID: kind, Name: kind}))
	}
	if err != nil {
		return 0, fmt.Errorf("end a channel of alerts: %w", err)
	}
	return n, nil
}

type meUpdate struct {
	Email   op.Clear[string] `json:"email" doc:"not part of this version: an address counts only once a link sent to it was opened"`
	Webhook op.Clear[string] `json:"alert_webhook_url" doc:"where alerts go, as in alert_channel.set; empty for nowhere"`
}

type meUpdated struct {
	At op.OffsetTime `json:"updated_at"`
}

// updateMe is CueAPI's way to set the webhook (CueAPI wire contract 2.1).
func (a *Alerts) updateMe(ctx context.Context, in meUpdate) (out meUpdated, err error) {
	out.At = op.OffsetTime(a.now())
	switch {
	case in.Email.Set && !in.Email.Null:
		return out, op.Invalid("body.email", "An e-mail address cannot be changed in this version")
	case !in.Webhook.Set || in.Webhook.Null:
		return out, NoFields.Msg("No fields to update")
	case in.Webhook.Val != "":
		_, err = a.setChannel(ctx, channelSet{byWebhook, in.Webhook.Val})
		return out, err
	}
	return out, a.DB.Update(ctx, func(tx *db.Tx) error {
		n, err := a.dropChannel(tx, access.From(ctx).Workspace(), byWebhook)
		if err == nil && n == 0 {
			access.Unchanged(tx)
		}
		return err
	})
}
