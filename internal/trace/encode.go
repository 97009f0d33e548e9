package trace

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers below are those of opentelemetry/proto/trace/v1/trace.proto and what it includes.

func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func text(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func number(b []byte, field protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

func fixed(b []byte, field protowire.Number, n int64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), uint64(n)) //nolint:gosec // times after 1970
}

// request is an ExportTraceServiceRequest.
func request(resource []byte, spans []Span) []byte {
	scope := message(nil, 1, text(nil, 1, "unstuck"))
	for i := range spans {
		scope = message(scope, 2, spans[i].encode())
	}
	return message(nil, 1, message(message(nil, 1, resource), 2, scope))
}

// resource is a Resource.
func resourceOf(c Config) (b []byte) {
	for _, a := range append([]Attr{Text("service.name", c.Service)}, c.Resource...) {
		b = message(b, 1, a.encode())
	}
	return b
}

func (a Attr) encode() []byte {
	value := text(nil, 1, a.Text)
	if a.isInt {
		value = number(nil, 3, uint64(a.Int)) //nolint:gosec // two's complement, as protobuf writes it
	}
	return message(text(nil, 1, a.Key), 2, value)
}

func (s *Span) encode() []byte {
	b := message(nil, 1, s.Trace[:])
	b = message(b, 2, s.ID[:])
	if s.Parent != (SpanID{}) {
		b = message(b, 4, s.Parent[:])
	}
	b = number(text(b, 5, s.Name), 6, uint64(s.Kind))
	b = fixed(fixed(b, 7, s.Start.UnixNano()), 8, s.End.UnixNano())
	for _, a := range s.Attrs {
		b = message(b, 9, a.encode())
	}
	for _, l := range s.Links {
		b = message(b, 13, message(message(nil, 1, l.Trace[:]), 2, l.Span[:]))
	}
	if s.Failed {
		b = message(b, 15, number(nil, 3, 2))
	}
	return b
}

// rejected reads an ExportTraceServiceResponse: how many spans the receiver did not take, and why.
func rejected(b []byte) (n int64, why string) {
	fields(b, func(field protowire.Number, _ uint64, partial []byte) {
		if field != 1 {
			return
		}
		fields(partial, func(field protowire.Number, v uint64, raw []byte) {
			switch field {
			case 1:
				n = int64(v) //nolint:gosec // as it was written
			case 2:
				why = string(raw)
			}
		})
	})
	return n, why
}

// fields reads the varints and the byte fields of a message, as far as it is one.
func fields(b []byte, each func(field protowire.Number, v uint64, raw []byte)) {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		var v uint64
		var raw []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			raw, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return
		}
		b = b[n:]
		each(field, v, raw)
	}
}
