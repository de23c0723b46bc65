package crypto

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func newLinks(t testing.TB, key byte) *LinkCipher {
	t.Helper()
	c, err := NewLinkCipher(volumeKey(key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newValues(t testing.TB, key byte) *ValueCipher {
	t.Helper()
	c, err := NewValueCipher(volumeKey(key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLinkRoundTrip(t *testing.T) {
	c := newLinks(t, 1)
	lengths := []int{MaxTarget - 2, MaxTarget - 1, MaxTarget}
	for length := 1; length < 300; length++ {
		lengths = append(lengths, length)
	}
	for _, length := range lengths {
		target := strings.Repeat("/", length)
		stored, err := c.Encrypt(target)
		if err != nil || len(stored) > MaxStoredTarget {
			t.Fatalf("length %d: stored in %d bytes, %v", length, len(stored), err)
		}
		if got := c.PlainLen(len(stored)); got != length {
			t.Errorf("length %d: PlainLen is %d", length, got)
		}
		if got, err := newLinks(t, 1).Decrypt(stored); got != target || err != nil {
			t.Errorf("length %d: %v", length, err)
		}
		if again, _ := c.Encrypt(target); again == stored {
			t.Errorf("length %d: the nonce is not random", length)
		}
	}
	if _, err := c.Encrypt(strings.Repeat("/", MaxTarget+1)); !errors.Is(err, ErrTargetTooLong) {
		t.Errorf("one byte too many: %v", err)
	}
}

func TestForeignLinks(t *testing.T) {
	c := newLinks(t, 1)
	good, err := c.Encrypt("../target")
	if err != nil {
		t.Fatal(err)
	}
	raw := func(target string) string {
		return encoding.EncodeToString(sealValue(c.aead, []byte(target), nil))
	}
	other, _ := newLinks(t, 2).Encrypt("../target")
	for name, stored := range map[string]string{
		"empty": "", "a plain target": "../target", "other key": other,
		"no target": raw(""), "NUL": raw("a\x00b"), "newline": good + "\n",
		"overhead cut": good[:52], "too long": strings.Repeat("A", MaxStoredTarget+1),
		"of a value": encoding.EncodeToString(newValues(t, 1).Seal("", []byte("../target"))),
	} {
		if got, err := c.Decrypt(stored); !errors.Is(err, ErrForeignTarget) || got != "" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for i := range good {
		bad := good[:i] + string(good[i]^1) + good[i+1:]
		if _, err := c.Decrypt(bad); !errors.Is(err, ErrForeignTarget) {
			t.Errorf("character %d changed: %v", i, err)
		}
	}
	for stored, want := range map[int]int{-1: 0, 0: 0, 1: 0, 53: 0, 54: 0, 55: 1, 56: 2, 57: 0, 58: 3} {
		if got := c.PlainLen(stored); got != want {
			t.Errorf("PlainLen(%d) = %d, want %d", stored, got, want)
		}
	}
}

func TestValues(t *testing.T) {
	c := newValues(t, 1)
	for _, size := range []int{0, 1, 15, 16, 17, 255, 4096, 65536} {
		value := randomBytes(size)
		sealed := c.Seal("user.name", value)
		if len(sealed) != size+ValueOverhead {
			t.Errorf("value of %d bytes sealed in %d", size, len(sealed))
		}
		if got, err := newValues(t, 1).Open("user.name", sealed); !bytes.Equal(got, value) || err != nil {
			t.Errorf("value of %d bytes: %v", size, err)
		}
		if bytes.Equal(c.Seal("user.name", value), sealed) {
			t.Errorf("value of %d bytes: the nonce is not random", size)
		}
	}
	sealed := c.Seal("user.name", []byte("value"))
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := c.Open("user.name", bad); !errors.Is(err, ErrValueTampered) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	for _, length := range []int{0, 1, ValueOverhead - 1, ValueOverhead, len(sealed) - 1} {
		if _, err := c.Open("user.name", sealed[:length]); !errors.Is(err, ErrValueTampered) {
			t.Errorf("cut to %d bytes: %v", length, err)
		}
	}
	if _, err := c.Open("user.Name", sealed); !errors.Is(err, ErrValueTampered) {
		t.Errorf("under another name: %v", err)
	}
	if _, err := newValues(t, 2).Open("user.name", sealed); !errors.Is(err, ErrValueTampered) {
		t.Errorf("under another key: %v", err)
	}
}

func TestConfigMAC(t *testing.T) {
	mac, msg := NewConfigMAC(volumeKey(1)), []byte("configuration")
	sum := mac.Sum(msg)
	if err := NewConfigMAC(volumeKey(1)).Verify(msg, sum[:]); err != nil {
		t.Error(err)
	}
	for i := range sum {
		bad := sum
		bad[i] ^= 1
		if err := mac.Verify(msg, bad[:]); !errors.Is(err, ErrConfigTampered) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	for name, err := range map[string]error{
		"other message": mac.Verify([]byte("Configuration"), sum[:]),
		"other key":     NewConfigMAC(volumeKey(2)).Verify(msg, sum[:]),
		"no mac":        mac.Verify(msg, nil),
		"short mac":     mac.Verify(msg, sum[:16]),
	} {
		if !errors.Is(err, ErrConfigTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
