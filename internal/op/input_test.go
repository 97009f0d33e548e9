package op_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"unstuck/internal/op"
)

// each value is an input with one field, so that a case is its type, what is sent, and what is seen or said.
type (
	text = struct {
		V string `json:"v"`
	}
	truth = struct {
		V bool `json:"v"`
	}
	number = struct {
		V int `json:"v"`
	}
	moment = struct {
		V op.Time `json:"v"`
	}
	list = struct {
		V []int `json:"v"`
	}
	table = struct {
		V map[string]string `json:"v"`
	}
	raw = struct {
		V op.Value `json:"v"`
	}
	object = struct {
		V op.Object `json:"v"`
	}
	optional = struct {
		V op.Opt[string] `json:"v"`
	}
	clearing = struct {
		V op.Clear[string] `json:"v"`
	}
)

// check sends {"v": sent} and compares what the operation saw (printed with %v) or the violation of body.v.
func check[In any](t *testing.T, sent, want string) {
	t.Helper()
	in, err := read[In](t, body(`{"v":`+sent+`}`))
	got := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%+v", in), "{V:"), "}")
	if err != nil {
		got = strings.TrimPrefix(strings.Join(places(err), "; "), "body.v: ")
	}
	if got != want {
		t.Errorf("%T from %s\n got %s\nwant %s", in, sent, got, want)
	}
}

func TestCoercions(t *testing.T) {
	const (
		isInt      = "Input should be a valid integer"
		unreadable = isInt + ", unable to parse string as an integer"
		fraction   = isInt + ", got a number with a fractional part"
		tooLarge   = isInt + ", between -9223372036854775808 and 9223372036854775807"
	)
	for sent, want := range map[string]string{
		`3`: "3", `"3"`: "3", `3.0`: "3", `"3.0"`: "3", `" 3 "`: "3", `-0`: "0", `3e2`: "300", `30e-1`: "3", `"+3"`: "3", `1.5e1`: "15",
		`9223372036854775807`: "9223372036854775807", `9007199254740993.0`: "9007199254740993", `-9223372036854775808`: "-9223372036854775808",
		`9223372036854775808`: tooLarge, `"-9223372036854775809"`: tooLarge, `1e30`: tooLarge, `-1e30`: tooLarge, strings.Repeat("9", 4300): tooLarge,
		`3.5`: fraction, `1e-3`: fraction, `"3.5"`: unreadable, `"3."`: unreadable, `"1e2"`: unreadable, `"x"`: unreadable, `""`: unreadable,
		`"0x10"`: unreadable, `"1_0"`: unreadable, `true`: isInt, `null`: isInt, `[]`: isInt, `{}`: isInt,
	} {
		check[number](t, sent, want)
	}
	const isBool, unclear = "Input should be a valid boolean", "Input should be a valid boolean, unable to interpret input"
	for sent, want := range map[string]string{
		`true`: "true", `1`: "true", `1.0`: "true", `"true"`: "true", `"1"`: "true", `"YES"`: "true", `"On"`: "true", `"t"`: "true", `"Y"`: "true",
		`false`: "false", `0`: "false", `-0.0`: "false", `"False"`: "false", `"0"`: "false", `"no"`: "false", `"oFF"`: "false", `"f"`: "false", `"N"`: "false",
		`2`: unclear, `"maybe"`: unclear, `""`: unclear, `null`: isBool, `[]`: isBool, `{}`: isBool,
	} {
		check[truth](t, sent, want)
	}
	const isString = "Input should be a valid string"
	for sent, want := range map[string]string{
		`"é😀"`: "é😀", `""`: "", `3`: isString, `true`: isString, `null`: isString, `[]`: isString, `{}`: isString,
		`"a\u0000b"`: "String should not contain the NUL character",
	} {
		check[text](t, sent, want)
	}
	for sent, want := range map[string]string{
		`[1,"2",3.0]`: "[1 2 3]", `[]`: "[]", `{}`: "Input should be a valid list", `null`: "Input should be a valid list", `"1"`: "Input should be a valid list",
		`[1,"x",{}]`: "body.v.1: " + unreadable + "; body.v.2: " + isInt,
	} {
		check[list](t, sent, want)
	}
	for sent, want := range map[string]string{
		`{"a":"1"}`: "map[a:1]", `{}`: "map[]", `[]`: "Input should be a valid dictionary", `{"a":1,"b":null}`: "body.v.a: " + isString + "; body.v.b: " + isString,
		`{"a\u0000":"1"}`: "Keys should not contain the NUL character",
	} {
		check[table](t, sent, want)
	}
}

// A text that the guard does not let in is refused wherever it stands, and never repeated; a field may be freed from that.
func TestTextsThatTheGuardRefuses(t *testing.T) {
	type inner struct {
		Word string `json:"word"`
	}
	type in struct {
		ID    string            `json:"id"`
		Agent op.Opt[string]    `header:"X-Agent"`
		Words []string          `json:"words" default:"[]"`
		Map   map[string]string `json:"map" default:"{}"`
		Any   op.Value          `json:"any" default:"null"`
		Doc   op.Object         `json:"doc" default:"{}"`
		Part  op.Opt[inner]     `json:"part"`
		Kind  op.Opt[string]    `json:"kind" enum:"a|b"`
		Freed map[string]string `json:"freed" default:"{}" secrets:"may"`
		Also  op.Opt[op.Value]  `json:"also" secrets:"may"`
	}
	const no = ": Value error, no secrets here"
	route := func(s *op.Spec) { s.Route = "POST /v1/things/{id}" }
	for sent, want := range map[string][]string{
		`{"words":["a","open sesame","sesame"]}`:              {"body.words.1" + no, "body.words.2" + no},
		`{"map":{"a":"sesame"}}`:                              {"body.map.a" + no},
		`{"map":{"sesame":"a"}}`:                              {"body.map" + no},
		`{"any":"\u0073esame"}`:                               {"body.any" + no},
		`{"any":[{"b":{"sesame":1}},{"b":"sesame"}]}`:         {"body.any" + no},
		`{"doc":{"a":[null,1,{"b":"x sesame y"}]}}`:           {"body.doc" + no},
		`{"part":{"word":"sesame"}}`:                          {"body.part.word" + no},
		`{"kind":"sesame"}`:                                   {"body.kind" + no},
		`{"freed":{"sesame":"a"}}`:                            {"body.freed" + no},
		`{"freed":{"a":"sesame"},"also":{"sesame":"sesame"}}`: nil,
	} {
		if diff := cmp.Diff(want, placesOf[in](t, op.Request{Params: map[string]string{"id": "x"}, Body: []byte(sent)}, route)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", sent, diff)
		}
	}
	elsewhere := op.Request{Params: map[string]string{"id": "sesame"}, Header: http.Header{"X-Agent": {"sesame"}}}
	if diff := cmp.Diff([]string{"path.id" + no, "header.X-Agent" + no}, placesOf[in](t, elsewhere, route)); diff != "" {
		t.Error(diff)
	}
	if got := placesOf[text](t, op.Request{Query: url.Values{"v": {"sesame"}}}, get); len(got) != 1 || got[0] != "query.v"+no {
		t.Error(got)
	}
}

// placesOf sends a request to an operation that takes In and answers what was wrong.
func placesOf[In any](t *testing.T, r op.Request, changes ...func(*op.Spec)) []string {
	t.Helper()
	_, err := read[In](t, r, changes...)
	return places(err)
}

func TestMoments(t *testing.T) {
	const bad = "Input should be a valid datetime or date, "
	for sent, want := range map[string]string{
		`"2026-11-22T09:05:58.283098Z"`: "2026-11-22T09:05:58.283098Z", `"2026-11-22T09:05:00Z"`: "2026-11-22T09:05:00Z",
		`"2026-11-22T10:05:00+01:00"`: "2026-11-22T09:05:00Z", `"2026-11-22t09:05:00z"`: "2026-11-22T09:05:00Z", `"2026-11-22 09:05:00"`: "2026-11-22T09:05:00Z",
		`"2026-11-22T09:05"`: "2026-11-22T09:05:00Z", `"2026-11-22T09:05+00:00"`: "2026-11-22T09:05:00Z", `"2026-11-22"`: "2026-11-22T00:00:00Z",
		`1795339515`: "2026-11-22T09:25:15Z", `1795339515.283098`: "2026-11-22T09:25:15.283098Z", `"1795339515"`: "2026-11-22T09:25:15Z",
		`1795339515283`: "2026-11-22T09:25:15.283000Z", `0`: "1970-01-01T00:00:00Z", `-1`: "1969-12-31T23:59:59Z",
		`"9999-12-31T23:59:59.999999Z"`: "9999-12-31T23:59:59.999999Z", `"0001-01-01T00:00:00Z"`: "0001-01-01T00:00:00Z",
		`"tomorrow"`: bad + "input is too short", `""`: bad + "input is too short", `"2026-13-01T00:00:00Z"`: bad + "month value is outside expected range of 1-12",
		`"2026-02-30T00:00:00Z"`: bad + "write it like 2026-11-22T09:05:00Z", `"2026-11-22T25:00:00Z"`: bad + "write it like 2026-11-22T09:05:00Z",
		`"9999-12-31T23:59:59-01:00"`: bad + "the year is outside expected range of 1-9999", `"0001-01-01T00:00:00+01:00"`: bad + "the year is outside expected range of 1-9999",
		`1e15`: bad + "the year is outside expected range of 1-9999", `"nan"`: bad + "the year is outside expected range of 1-9999", `"inf"`: bad + "the year is outside expected range of 1-9999",
		`"2026-11-2é"`: bad + "write it like 2026-11-22T09:05:00Z", `true`: "Input should be a valid datetime", `null`: "Input should be a valid datetime", `{}`: "Input should be a valid datetime",
	} {
		check[moment](t, sent, want)
	}
}

func TestMomentsReadAsTheyAreWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := op.Time(rapid.Int64Range(-62135596800e6, 253402300800e6-1).Draw(rt, "moment"))
		for _, form := range []string{want.String(), op.OffsetTime(want).String()} {
			in, err := read[moment](t, body(`{"v":"`+form+`"}`))
			if err != nil || in.V != want {
				rt.Fatalf("%s reads as %v (%v)", form, in.V, err)
			}
		}
	})
}

func TestNullIsAbsentClearsOrIsRefused(t *testing.T) {
	type null struct {
		V op.Value `json:"v"`
	}
	for sent, want := range map[string]string{`"x"`: "{Val:x Set:true}", `null`: "{Val: Set:false}", `""`: "{Val: Set:true}", `3`: "Input should be a valid string"} {
		check[optional](t, sent, want)
	}
	for sent, want := range map[string]string{`"x"`: "{Val:x Set:true Null:false}", `null`: "{Val: Set:true Null:true}", `3`: "Input should be a valid string"} {
		check[clearing](t, sent, want)
	}
	if in, err := read[optional](t, body(`{}`)); err != nil || in.V.Set || in.V.Or("z") != "z" {
		t.Errorf("absent: %+v %v", in, err)
	}
	if in, err := read[clearing](t, body(``)); err != nil || in.V.Set || in.V.Null {
		t.Errorf("absent: %+v %v", in, err)
	}
	if in, err := read[null](t, body(`{"v":null}`)); err != nil || string(in.V) != "null" {
		t.Errorf("a value of any kind: %s %v", in.V, err)
	}
	if got := op.Some(7).Or(3); got != 7 {
		t.Errorf("Some(7).Or(3) = %d", got)
	}
}

// Numbers in payloads keep every digit: 1.0 stays 1.0, and large ones are not rounded.
func TestRawJSONIsKept(t *testing.T) {
	const sent = `{"n":1.0,"big":123456789012345678901234567890,"s":"\u00e9","deep":[{"z":-0,"a":1e2}]}`
	in, err := read[object](t, body(`{"v": `+strings.ReplaceAll(sent, ",", " ,\n ")+` }`))
	if err != nil || string(in.V) != sent {
		t.Errorf("got %s (%v)", in.V, err)
	}
	value, err := read[raw](t, body(`{"v": [ 1.50 , "x" ] }`))
	if err != nil || string(value.V) != `[1.50,"x"]` {
		t.Errorf("got %s (%v)", value.V, err)
	}
	if _, err := read[object](t, body(`{"v":[]}`)); len(places(err)) != 1 || places(err)[0] != "body.v: Input should be a valid dictionary" {
		t.Errorf("a list for an object: %v", places(err))
	}
}

// order is declared in an order of its own: violations come in it, whatever the order of the body.
type order struct {
	ID     string `json:"id"`
	Worker string `header:"X-Worker-Id" max:"5"`
	Name   string `json:"name" min:"1" max:"4"`
	Mode   string `json:"mode" enum:"fast|slow|off"`
	Code   string `json:"code" re:"^[a-z]+$"`
	Count  int    `json:"count" min:"1" max:"9"`
	Retry  struct {
		Minutes []int `json:"minutes" min:"1" max:"3"`
		Deep    struct {
			On bool `json:"on"`
		} `json:"deep"`
	} `json:"retry"`
	Parts []struct {
		A string `json:"a"`
	} `json:"parts"`
}

func ordered(s *op.Spec) { s.Route = "POST /v1/orders/{id}" }

func TestAllViolationsInTheOrderOfDeclaration(t *testing.T) {
	r := op.Request{
		Params: map[string]string{"id": "a\x00"},
		Header: http.Header{"X-Worker-Id": {"abcdef"}},
		Body: []byte(`{"zzz":1, "parts":[{"a":"x"},{"a":1,"b":2}], "retry":{"deep":{"on":"perhaps","off":1},"minutes":[1,2,3,4]},
			"count":0, "code":"A1", "mode":"medium", "name":"a name"}`),
	}
	_, err := read[order](t, r, ordered)
	want := []string{
		"path.id: String should not contain the NUL character",
		"header.X-Worker-Id: String should have at most 5 characters",
		"body.name: String should have at most 4 characters",
		"body.mode: Input should be 'fast', 'slow' or 'off'",
		"body.code: String should match pattern '^[a-z]+$'",
		"body.count: Input should be greater than or equal to 1",
		"body.retry.minutes: List should have at most 3 items",
		"body.retry.deep.on: Input should be a valid boolean, unable to interpret input",
		"body.retry.deep.off: Extra inputs are not permitted",
		"body.parts.1.a: Input should be a valid string",
		"body.parts.1.b: Extra inputs are not permitted",
		"body.zzz: Extra inputs are not permitted",
	}
	if diff := cmp.Diff(want, places(err)); diff != "" {
		t.Error(diff)
	}
	if err.Code != op.ValidationError || err.Message != want[0] {
		t.Errorf("code %v, message %q", err.Code, err.Message)
	}
}

func TestOpenBodiesIgnoreWhatTheyDoNotKnow(t *testing.T) {
	_, err := read[order](t, op.Request{
		Params: map[string]string{"id": "1"}, Header: http.Header{"X-Worker-Id": {"w"}},
		Body: []byte(`{"zzz":1,"name":"n","mode":"off","code":"a","count":9,"retry":{"minutes":[1],"deep":{"on":1,"x":1},"x":1},"parts":[{"a":"","b":1}]}`),
	}, ordered, open)
	if err != nil {
		t.Error(places(err))
	}
}

func TestWhatIsMissing(t *testing.T) {
	type in struct {
		ID   string         `json:"id"`
		Name string         `json:"name"`
		Size int            `json:"size" default:"3"`
		Tags []string       `json:"tags" default:"[\"a\",\"b\"]"`
		Note string         `json:"note" default:""`
		Opt  op.Opt[int]    `json:"opt" default:"7"`
		At   op.Time        `json:"at" default:"2026-11-22T09:05:00Z"`
		Data op.Object      `json:"data" default:"{}"`
		End  op.Opt[string] `json:"end"`
	}
	path := map[string]string{"id": "a"}
	for name, c := range map[string]struct {
		body string
		want []string
	}{
		"no body":                 {``, []string{"body: Field required"}},
		"null":                    {`null`, []string{"body: Field required"}},
		"white space":             {" \r\n\t", []string{"body: Field required"}},
		"an empty object":         {`{}`, []string{"body.name: Field required"}},
		"a list":                  {`[]`, []string{"body: Input should be a valid dictionary or object to extract fields from"}},
		"a string":                {`"x"`, []string{"body: Input should be a valid dictionary or object to extract fields from"}},
		"null for what must be":   {`{"name":null,"size":null}`, []string{"body.name: Input should be a valid string", "body.size: Input should be a valid integer"}},
		"a space that JSON hates": {"\u00a0", []string{"invalid_json: Request body is not valid JSON: a value was expected at byte 1."}},
	} {
		for _, change := range []func(*op.Spec){func(*op.Spec) {}, open} {
			if _, err := read[in](t, op.Request{Params: path, Body: []byte(c.body)}, ordered, change); !cmp.Equal(places(err), c.want) {
				t.Errorf("%s: %v, want %v", name, places(err), c.want)
			}
		}
	}
	got, err := read[in](t, op.Request{Params: path, Body: []byte(`{"name":"n"}`)}, ordered)
	want := in{ID: "a", Name: "n", Size: 3, Tags: []string{"a", "b"}, Opt: op.Some(7), At: got.At, Data: op.Object(`{}`)}
	if diff := cmp.Diff(want, got); err != nil || diff != "" || got.At.String() != "2026-11-22T09:05:00Z" {
		t.Errorf("defaults: %s %v %s", diff, err, got.At)
	}
}

// A broken body does not hide what is wrong elsewhere.
func TestBodyAsAWholeIsOneOfTheViolations(t *testing.T) {
	_, err := read[order](t, op.Request{Params: map[string]string{"id": "\xff"}}, ordered)
	want := []string{
		"path.id: Input should be a valid string, unable to parse raw data as a unicode string",
		"header.X-Worker-Id: Field required",
		"body: Field required",
	}
	if diff := cmp.Diff(want, places(err)); diff != "" {
		t.Error(diff)
	}
}

func TestBodiesThatNobodyWants(t *testing.T) {
	type in struct {
		ID string `json:"id"`
	}
	reading := func(s *op.Spec) { s.Route, s.Effect = "GET /v1/orders/{id}", op.Read }
	for _, c := range []struct {
		body   string
		change func(*op.Spec)
		want   []string
	}{
		{``, ordered, nil},
		{`{}`, ordered, nil},
		{`null`, ordered, nil},
		{`{"a":1}`, ordered, []string{"body.a: Extra inputs are not permitted"}},
		{`[]`, ordered, []string{"body: Input should be a valid dictionary or object to extract fields from"}},
		{`{"a":1}`, func(s *op.Spec) { ordered(s); open(s) }, nil},
		{`[]`, func(s *op.Spec) { ordered(s); open(s) }, nil},
		{`{"a":`, reading, nil},
		{`[]`, reading, nil},
	} {
		_, err := read[in](t, op.Request{Params: map[string]string{"id": "1"}, Body: []byte(c.body)}, c.change)
		if !cmp.Equal(places(err), c.want) {
			t.Errorf("%s: %v, want %v", c.body, places(err), c.want)
		}
	}
}

func TestQueryAndHeaders(t *testing.T) {
	type in struct {
		Limit  int            `json:"limit" default:"50" min:"1" max:"100"`
		Status op.Opt[string] `json:"status"`
		Done   op.Opt[bool]   `json:"done"`
		Tags   []string       `json:"tags" default:"[]"`
		Trace  op.Opt[string] `header:"X-Trace"`
		Lines  []string       `header:"X-Line" default:"[]"`
	}
	for _, c := range []struct {
		query  string
		header http.Header
		want   in
		bad    []string
	}{
		{query: "", want: in{Limit: 50, Tags: []string{}, Lines: []string{}}},
		{query: "limit=7&limit=9", want: in{Limit: 9, Tags: []string{}, Lines: []string{}}},
		{query: "status=", want: in{Limit: 50, Status: op.Some(""), Tags: []string{}, Lines: []string{}}},
		{query: "status=null&done=ON", want: in{Limit: 50, Status: op.Some("null"), Done: op.Some(true), Tags: []string{}, Lines: []string{}}},
		{query: "tags=a&tags=b&tags=", want: in{Limit: 50, Tags: []string{"a", "b", ""}, Lines: []string{}}},
		{query: "unknown=1", want: in{Limit: 50, Tags: []string{}, Lines: []string{}}},
		{header: http.Header{"X-Trace": {"a", "b"}, "X-Line": {"1", "2"}}, want: in{Limit: 50, Trace: op.Some("b"), Tags: []string{}, Lines: []string{"1", "2"}}},
		{query: "limit=", bad: []string{"query.limit: Input should be a valid integer, unable to parse string as an integer"}},
		{query: "limit=0", bad: []string{"query.limit: Input should be greater than or equal to 1"}},
		{query: "limit=99999999999999999999", bad: []string{"query.limit: Input should be less than or equal to 100"}},
		{query: "limit=-99999999999999999999", bad: []string{"query.limit: Input should be greater than or equal to 1"}},
		{query: "limit=1.5", bad: []string{"query.limit: Input should be a valid integer, unable to parse string as an integer"}},
		{query: "status=%00", bad: []string{"query.status: String should not contain the NUL character"}},
		{query: "status=%ff&done=x", bad: []string{
			"query.status: Input should be a valid string, unable to parse raw data as a unicode string",
			"query.done: Input should be a valid boolean, unable to interpret input"}},
		{header: http.Header{"X-Line": {"ok", "\xff"}}, bad: []string{"header.X-Line.1: Input should be a valid string, unable to parse raw data as a unicode string"}},
	} {
		query, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		got, bad := read[in](t, op.Request{Query: query, Header: c.header}, get)
		if c.bad != nil {
			if !cmp.Equal(places(bad), c.bad) {
				t.Errorf("%s: %v, want %v", c.query, places(bad), c.bad)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got); bad != nil || diff != "" {
			t.Errorf("%s %v: %v %s", c.query, c.header, bad, diff)
		}
	}
}

func TestNULMayBeReplaced(t *testing.T) {
	type in struct {
		V string `json:"v" nul:"replace" max:"3"`
	}
	got, err := read[in](t, body(`{"v":"a\u0000b"}`))
	if err != nil || got.V != "a\uFFFDb" {
		t.Errorf("%q %v", got.V, err)
	}
}

func TestLengthsCountCharacters(t *testing.T) {
	type in struct {
		V string `json:"v" min:"2" max:"2"`
	}
	for sent, want := range map[string][]string{
		"é😀":  nil,
		"é":   {"body.v: String should have at least 2 characters"},
		"abc": {"body.v: String should have at most 2 characters"},
	} {
		if _, err := read[in](t, body(`{"v":"`+sent+`"}`)); !cmp.Equal(places(err), want) {
			t.Errorf("%s: %v", sent, places(err))
		}
	}
	type one struct {
		V string `json:"v" min:"1"`
		L []int  `json:"l" min:"1"`
	}
	_, err := read[one](t, body(`{"v":"","l":[]}`))
	want := []string{"body.v: String should have at least 1 character", "body.l: List should have at least 1 item"}
	if !cmp.Equal(places(err), want) {
		t.Error(places(err))
	}
}

// A body can hold tens of thousands of violations; an answer lists a hundred. More values than that are not read at all: they would
// cost a hundred times the memory that they take on the wire.
func TestViolationsAreBounded(t *testing.T) {
	_, err := read[list](t, body(`{"v":[`+strings.Repeat(`"x",`, 40_000)+`"x"]}`))
	if err == nil || len(err.Details) != 100 || err.Details[99].Field != "body.v.99" {
		t.Errorf("%d violations", len(err.Details))
	}
	if _, err := read[list](t, body(`{"v":[`+strings.Repeat(`0,`, 60_000)+`0]}`)); err == nil || err.Code.Name != "invalid_json" {
		t.Errorf("60,000 values: %v", err)
	}
}

// Whatever is sent, an operation sees its input or the caller a list of what is wrong; nothing panics.
func TestAnyBodyGetsAClearAnswer(t *testing.T) {
	values := rapid.SampledFrom([]string{`1`, `"x"`, `null`, `[]`, `{}`, `[1]`, `{"on":true}`, `{"minutes":[1],"deep":{"on":1}}`, `1e400`, `"\ud800"`, `[[]]`, `true`, `"off"`})
	rapid.Check(t, func(rt *rapid.T) {
		var b strings.Builder
		for i, name := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"id", "name", "mode", "code", "count", "retry", "parts", "zzz"}), rapid.ID[string]).Draw(rt, "members") {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.Quote(name) + ":" + values.Draw(rt, name))
		}
		r := op.Request{Params: map[string]string{"id": "1"}, Header: http.Header{"X-Worker-Id": {"w"}}, Body: []byte("{" + b.String() + "}")}
		if _, err := read[order](t, r, ordered); err != nil && err.Code != op.ValidationError && err.Code != op.InvalidJSON {
			rt.Fatalf("{%s}: %v", b.String(), err)
		}
	})
}

// TestBodyOfADelete: what belongs into the query is refused in the body; whatever else is there is passed over.
func TestBodyOfADelete(t *testing.T) {
	type in struct {
		ID   string         `json:"id"`
		What op.Opt[string] `json:"what" enum:"keep|drop"`
	}
	remove := func(s *op.Spec) { s.Name, s.Route, s.Effect = "thing.end", "DELETE /v1/things/{id}", op.Destroy }
	for text, want := range map[string]string{
		`{"what":"drop"}`: "[body.what: A DELETE has no body; send it in the query: ?what=…]",
		`{"what":7}`:      "[body.what: A DELETE has no body; send it in the query: ?what=…]",
		`{"who":"drop"}`:  "[]",
		`{"id":"x"}`:      "[]",
		`["what"]`:        "[]",
		`what=drop`:       "[]",
		``:                "[]",
	} {
		r := body(text)
		r.Params, r.Query = map[string]string{"id": "t1"}, url.Values{"what": {"keep"}}
		seen, err := read[in](t, r, remove)
		if got := fmt.Sprint(places(err)); got != want || err == nil && seen.What.Val != "keep" {
			t.Errorf("%s: %s, %+v", text, got, seen)
		}
	}
}
