package control

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func FuzzReadRequest(f *testing.F) {
	f.Add(`{"version":1,"method":"status"}` + "\n")
	f.Add(`{"version":1,"method":"echo","params":{"a":[1,2]}}` + "\n")
	f.Add(`{"version":2}` + "\n")
	f.Add(`{"version":1`)
	f.Add("\n")
	f.Add(strings.Repeat("x", MaxRequest+2))
	f.Fuzz(func(t *testing.T, text string) {
		req, err := readRequest(strings.NewReader(text))
		if err != nil {
			var bad *Error
			if !errors.As(err, &bad) || bad.Code == "" {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		line, rest, ended := strings.Cut(text, "\n")
		if !ended || len(line) > MaxRequest {
			t.Fatalf("accepted without an end, or too long: %.100q", text)
		}
		again, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readRequest(strings.NewReader(string(again) + "\n" + rest))
		if err != nil || got.Method != req.Method || got.Version != Version {
			t.Fatalf("%q is read as %+v, which becomes %q, read as %+v, %v", line, req, again, got, err)
		}
	})
}
