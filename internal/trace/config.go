package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Config is where traces go and which. The zero value is off.
type Config struct {
	URL      string // of the receiver, up to its /v1/traces; "" for off
	Headers  map[string]string
	CA       string // file of the certificate authorities that the receiver's certificate must come from; "" for those of the system
	Gzip     bool
	Timeout  time.Duration // of one request
	Service  string
	Resource []Attr // further ones of the server
	Sampler  Sampler
	Every    time.Duration // how long spans wait to be sent at most
	Queue    int           // spans that wait at most; further ones are dropped
	Batch    int           // spans in one request at most
}

// Variable is one of OpenTelemetry's environment variables that Read heeds.
type Variable struct{ Name, Default, Doc string }

// Variables are all of them.
func Variables() []Variable {
	return []Variable{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "", "base address of a receiver of OTLP over HTTP, such as http://127.0.0.1:4318; it switches traces on"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "the same for traces alone, with its whole path"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "", "headers for the receiver: name=value, separated by commas; OTEL_EXPORTER_OTLP_TRACES_HEADERS for traces alone"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", "", "file of the certificate authorities of the receiver, in PEM; OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE for traces alone"},
		{"OTEL_EXPORTER_OTLP_COMPRESSION", "none", "gzip or none; OTEL_EXPORTER_OTLP_TRACES_COMPRESSION for traces alone"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "the only one spoken; OTEL_EXPORTER_OTLP_TRACES_PROTOCOL for traces alone"},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "10000", "milliseconds for one request; OTEL_EXPORTER_OTLP_TRACES_TIMEOUT for traces alone"},
		{"OTEL_TRACES_EXPORTER", "otlp", "otlp, or none, which switches traces off"},
		{"OTEL_SDK_DISABLED", "false", "true switches traces off"},
		{"OTEL_SERVICE_NAME", "unstuck", "what the server is called in traces"},
		{"OTEL_RESOURCE_ATTRIBUTES", "", "further attributes of the server: name=value, separated by commas"},
		{"OTEL_TRACES_SAMPLER", "parentbased_always_on", "always_on, always_off, traceidratio, or one of these after parentbased_"},
		{"OTEL_TRACES_SAMPLER_ARG", "1", "for traceidratio: which part of the traces, from 0 to 1"},
		{"OTEL_BSP_SCHEDULE_DELAY", "5000", "milliseconds that spans wait to be sent together"},
		{"OTEL_BSP_MAX_QUEUE_SIZE", "16384", "spans that wait at most; further ones are dropped and counted"},
		{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "spans in one request at most"},
	}
}

// reader reads the variables and gathers faults.
type reader struct {
	env    func(string) (string, bool)
	faults []error
}

// said is what a variable says; "" when it is absent.
func (r *reader) said(name string) string {
	if value, ok := r.env(name); ok {
		return value
	}
	return ""
}

func (r *reader) get(name string) string {
	value := r.said(name)
	if value == "" {
		for _, v := range Variables() {
			if v.Name == name {
				return v.Default
			}
		}
	}
	return value
}

// exporter is a variable of the exporter: that for traces, or else that for everything.
func (r *reader) exporter(name string) string {
	if value := r.said("OTEL_EXPORTER_OTLP_TRACES_" + name); value != "" {
		return value
	}
	return r.get("OTEL_EXPORTER_OTLP_" + name)
}

func (r *reader) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf(format, args...))
}

// number reads a whole number above 0.
func (r *reader) number(name, value string) int {
	n, err := strconv.Atoi(value)
	if err != nil || n <= 0 {
		r.fault("%s is %q; write a whole number above 0", name, value)
	}
	return n
}

// Read reads the standard variables of OpenTelemetry. Nothing but faults of variables that matter is an error: all at once.
func Read(env func(string) (string, bool)) (c Config, err error) {
	r := &reader{env: env}
	if c.URL = r.address(); c.URL == "" || strings.EqualFold(r.get("OTEL_SDK_DISABLED"), "true") || r.get("OTEL_TRACES_EXPORTER") == "none" {
		return Config{}, errors.Join(r.faults...)
	}
	if name := r.get("OTEL_TRACES_EXPORTER"); name != "otlp" {
		r.fault("OTEL_TRACES_EXPORTER is %q; write otlp or none", name)
	}
	if p := r.exporter("PROTOCOL"); p != "http/protobuf" {
		r.fault("OTEL_EXPORTER_OTLP_PROTOCOL is %q; this server speaks http/protobuf only, which receivers take on port 4318", p)
	}
	c.Headers = map[string]string{}
	for _, a := range r.pairs("OTEL_EXPORTER_OTLP_HEADERS", r.exporter("HEADERS"), true) {
		c.Headers[a.Key] = a.Text
	}
	switch z := r.exporter("COMPRESSION"); z {
	case "gzip":
		c.Gzip = true
	case "none":
	default:
		r.fault("OTEL_EXPORTER_OTLP_COMPRESSION is %q; write gzip or none", z)
	}
	c.CA = r.exporter("CERTIFICATE")
	c.Timeout = time.Duration(r.number("OTEL_EXPORTER_OTLP_TIMEOUT", r.exporter("TIMEOUT"))) * time.Millisecond
	c.Service = r.get("OTEL_SERVICE_NAME")
	for _, a := range r.pairs("OTEL_RESOURCE_ATTRIBUTES", r.get("OTEL_RESOURCE_ATTRIBUTES"), false) {
		if a.Key == "service.name" && r.said("OTEL_SERVICE_NAME") == "" {
			c.Service = a.Text
		} else if a.Key != "service.name" {
			c.Resource = append(c.Resource, a)
		}
	}
	c.Sampler = r.sampler()
	c.Every = time.Duration(r.number("OTEL_BSP_SCHEDULE_DELAY", r.get("OTEL_BSP_SCHEDULE_DELAY"))) * time.Millisecond
	c.Queue = r.number("OTEL_BSP_MAX_QUEUE_SIZE", r.get("OTEL_BSP_MAX_QUEUE_SIZE"))
	c.Batch = r.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", r.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"))
	return c, errors.Join(r.faults...)
}

func (r *reader) address() string {
	name := "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	text := r.get(name)
	if text == "" {
		name = "OTEL_EXPORTER_OTLP_ENDPOINT"
		if text = r.get(name); text == "" {
			return ""
		}
		text = strings.TrimSuffix(text, "/") + "/v1/traces"
	}
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		r.fault("%s is no web address; write one such as http://127.0.0.1:4318", name)
	}
	return text
}

// pairs reads name=value, separated by commas, with values in percent-encoding (W3C Baggage). What they hold is not repeated when it may
// be secret.
func (r *reader) pairs(name, text string, secret bool) (out []Attr) {
	for _, part := range strings.Split(text, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		plain, err := url.PathUnescape(strings.TrimSpace(value))
		switch {
		case ok && err == nil && strings.TrimSpace(key) != "":
			out = append(out, Text(strings.TrimSpace(key), plain))
		case secret:
			r.fault("%s cannot be read; write name=value, separated by commas, with %%20 for a space", name)
		default:
			r.fault("%s has %q; write name=value, separated by commas, with %%20 for a space", name, part)
		}
	}
	return out
}

// Sampler decides which traces are sent.
type Sampler struct {
	Ratio  float64 // of those that begin here
	Parent bool    // of others, those that their parent's maker records
}

func (r *reader) sampler() (s Sampler) {
	text := r.get("OTEL_TRACES_SAMPLER")
	name, parent := strings.CutPrefix(text, "parentbased_")
	s.Parent = parent
	switch name {
	case "always_on":
		s.Ratio = 1
	case "always_off":
	case "traceidratio":
		arg := r.get("OTEL_TRACES_SAMPLER_ARG")
		ratio, err := strconv.ParseFloat(arg, 64)
		if s.Ratio = ratio; err != nil || !(ratio >= 0 && ratio <= 1) {
			r.fault("OTEL_TRACES_SAMPLER_ARG is %q; write a number from 0 to 1", arg)
		}
	default:
		r.fault("OTEL_TRACES_SAMPLER is %q; write always_on, always_off or traceidratio, or one of these after parentbased_", text)
	}
	return s
}

// Begins says whether a trace that begins here is sent. It goes by the last 56 bits of the trace's id, which are random in UUIDs too.
func (s Sampler) Begins(id ID) bool {
	r := float64(binary.BigEndian.Uint64(id[8:]) & (1<<56 - 1))
	return s.Ratio > 0 && r >= math.Ldexp(1-s.Ratio, 56)
}

// Continues says whether a span below a parent from elsewhere is sent.
func (s Sampler) Continues(p Parent) bool {
	if s.Parent {
		return p.Sampled
	}
	return s.Begins(p.Trace)
}
