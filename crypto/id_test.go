package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/envfs/envfs/internal/secret"
)

func TestID(t *testing.T) {
	id := ID{0x01, 0xab, 15: 0xff}
	const text = "01ab00000000000000000000000000ff"
	if id.String() != text {
		t.Errorf("String is %s", id)
	}
	if got, err := ParseID(text); got != id || err != nil {
		t.Errorf("ParseID: %s, %v", got, err)
	}
	encoded, err := json.Marshal(id)
	if err != nil || string(encoded) != `"`+text+`"` {
		t.Errorf("JSON: %s, %v", encoded, err)
	}
	var decoded ID
	if err := json.Unmarshal(encoded, &decoded); err != nil || decoded != id {
		t.Errorf("from JSON: %s, %v", decoded, err)
	}
	for _, bad := range []string{"", text[1:], text + "0", text + "00", strings.ToUpper(text), "x" + text[1:], " " + text} {
		if got, err := ParseID(bad); !errors.Is(err, ErrMalformedID) || got != (ID{}) {
			t.Errorf("ParseID(%q): %s, %v", bad, got, err)
		}
	}
	if a, b := NewID(), NewID(); a == b || a == (ID{}) {
		t.Errorf("NewID gives %s and %s", a, b)
	}
}

func TestSplitPayload(t *testing.T) {
	arena := secret.NewArena(nil)
	payload := arena.Random(PayloadSize)
	defer payload.Wipe()
	dek, id, err := SplitPayload(payload)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dek, payload.Bytes()[:32]) || !bytes.Equal(id[:], payload.Bytes()[32:]) || cap(dek) != 32 {
		t.Error("the parts are not DEK ‖ ID")
	}
	payload.Bytes()[0] ^= 1
	if dek[0] != payload.Bytes()[0] {
		t.Error("the DEK is a copy, not a view")
	}
	for _, size := range []int{1, 32, 47, 49, 64} {
		k := arena.New(size)
		if _, _, err := SplitPayload(k); !errors.Is(err, ErrPayloadSize) {
			t.Errorf("payload of %d bytes: %v", size, err)
		}
		k.Wipe()
	}
}
