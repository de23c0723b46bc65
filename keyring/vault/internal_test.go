package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

func TestPause(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: firstPause, 2: 2 * firstPause, 3: 4 * firstPause, 6: maxPause, 1000: maxPause} {
		for range 100 {
			if d := pause(failures, nil); d > want || d < want/2 {
				t.Fatalf("after %d failures: %v; want %v to %v", failures, d, want/2, want)
			}
		}
	}
	busy := requestError("x", &answer{status: 429, retryAfter: 7 * time.Second})
	if d := pause(1, busy); d != 7*time.Second {
		t.Errorf("the server asked for 7 s, got %v", d)
	}
}

// The texts are those of the sources of Vault 1.21, whose Transit has no other
// way to say what is wrong.
func TestMessageClass(t *testing.T) {
	for msg, want := range map[string]error{
		"ciphertext or signature version is disallowed by policy (too old)": keyring.ErrRevoked,
		"encryption key not found":                                           keyring.ErrRevoked,
		"soft-deleted key":                                                   keyring.ErrRevoked,
		"no such key version":                                                keyring.ErrRevoked,
		"invalid ciphertext: version is too new":                             keyring.ErrUnreachable,
		"cipher: message authentication failed":                              keyring.ErrCorrupt,
		"invalid ciphertext: no prefix":                                      keyring.ErrCorrupt,
		"invalid ciphertext length":                                          keyring.ErrCorrupt,
		"illegal base64 data at input byte 4":                                keyring.ErrCorrupt,
		"failed to RSA decrypt the ciphertext: crypto/rsa: decryption error": keyring.ErrCorrupt,
		"missing 'context' for key derivation; the key was created using a derived key, which …": keyring.ErrConfig,
		"message decryption not supported for key type ed25519":                                  keyring.ErrConfig,
		"something new": nil,
		"":              nil,
	} {
		if _, got := messageClass(msg); got != want {
			t.Errorf("%q: %v; want %v", msg, got, want)
		}
	}
	k := &Keyring{}
	if got := keyring.Class(k.itemError(decrypt, 400, "something new")); got != keyring.ErrCorrupt {
		t.Errorf("unknown user error: %v", got)
	}
	if got := keyring.Class(k.itemError(decrypt, 500, "something new")); got != keyring.ErrUnreachable {
		t.Errorf("unknown internal error: %v", got)
	}
}

func TestRequestErrorClass(t *testing.T) {
	for _, c := range []struct {
		status int
		msg    string
		want   error
	}{
		{400, "encryption key not found", keyring.ErrRevoked},
		{400, "missing client token", keyring.ErrDenied},
		{400, "something new", keyring.ErrConfig},
		{401, "", keyring.ErrDenied},
		{403, "permission denied", keyring.ErrDenied},
		{404, "no handler for route \"elsewhere/\"", keyring.ErrConfig},
		{404, "", keyring.ErrConfig},
		{405, "unsupported operation", keyring.ErrConfig},
		{412, "required index state not present", keyring.ErrUnreachable},
		{429, "request path is rate limited", keyring.ErrUnreachable},
		{472, "", keyring.ErrUnreachable},
		{473, "", keyring.ErrUnreachable},
		{500, "internal error", keyring.ErrUnreachable},
		{500, "encryption key not found in the cache", keyring.ErrUnreachable},
		{500, "failed to RSA decrypt the ciphertext", keyring.ErrCorrupt},
		{502, "", keyring.ErrUnreachable},
		{503, "Vault is sealed", keyring.ErrUnreachable},
	} {
		err := requestError("op", &answer{status: c.status, messages: []string{c.msg}})
		if keyring.Class(err) != c.want {
			t.Errorf("%d %q: %v; want %v", c.status, c.msg, keyring.Class(err), c.want)
		}
	}
}

func testItems(n int) []item {
	arena := secret.NewArena(nil)
	items := make([]item, n)
	for i := range items {
		items[i] = item{key: arena.Random(secret.MaxSize), wrapped: keyring.Wrapped("vault:v1:" + strings.Repeat("A", i))}
	}
	return items
}

// The body holds keys and is wiped afterwards; a buffer that grew would leave
// parts of itself behind.
func TestBatchBodyIsOneBuffer(t *testing.T) {
	for _, n := range []int{0, 1, 2, 128} {
		for _, v := range []verb{encrypt, decrypt, rewrap} {
			for _, derived := range []bool{false, true} {
				k := &Keyring{opts: Options{Context: bytes.Repeat([]byte("c"), 100)}, info: KeyInfo{Derived: derived}}
				items := testItems(n)
				if allocs := testing.AllocsPerRun(5, func() { k.batchBody(v, items) }); allocs != 1 {
					t.Errorf("%s of %d, derived %t: %v buffers; want 1", v, n, derived, allocs)
				}
			}
		}
	}
}

func TestBatchBody(t *testing.T) {
	items := testItems(3)
	for _, derived := range []bool{false, true} {
		for _, v := range []verb{encrypt, decrypt, rewrap} {
			k := &Keyring{opts: Options{Context: []byte("volume")}, info: KeyInfo{Derived: derived}}
			var got struct {
				Input []struct {
					Plaintext  *string
					Ciphertext *string
					Context    *string
				} `json:"batch_input"`
				Code int `json:"partial_failure_response_code"`
			}
			dec := json.NewDecoder(bytes.NewReader(k.batchBody(v, items)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&got); err != nil {
				t.Fatal(err)
			}
			if want := map[verb]int{encrypt: 200, decrypt: 200, rewrap: 0}[v]; got.Code != want || len(got.Input) != 3 {
				t.Errorf("%s: code %d, %d items", v, got.Code, len(got.Input))
			}
			for i, in := range got.Input {
				if (v == encrypt) != (in.Plaintext != nil) || (v == encrypt) == (in.Ciphertext != nil) || derived != (in.Context != nil) {
					t.Errorf("%s, derived %t: fields %+v", v, derived, in)
				}
				if v == encrypt && *in.Plaintext != base64.StdEncoding.EncodeToString(items[i].key.Bytes()) {
					t.Errorf("item %d: another plaintext", i)
				}
				if v != encrypt && *in.Ciphertext != string(items[i].wrapped) {
					t.Errorf("item %d: another ciphertext", i)
				}
			}
		}
	}
}

func TestReadReply(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 10_000, 100_000} {
		for _, announced := range []int64{-1, int64(n), 5} {
			want := bytes.Repeat([]byte("x"), n)
			got, err := readReply(iotest.OneByteReader(bytes.NewReader(want)), announced)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, announced %d: %d bytes, %v", n, announced, len(got), err)
			}
		}
	}
	broken := io.MultiReader(strings.NewReader("begin"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := readReply(broken, -1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken off: %v", err)
	}
	if _, err := readReply(endless{}, 1<<60); !errors.Is(err, errTooLong) {
		t.Errorf("without end: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func FuzzParseResults(f *testing.F) {
	f.Add([]byte(`{"data":{"batch_results":[{"plaintext":"AAAA"},{"error":"x"}]}}`))
	f.Add([]byte(`{"data":{"batch_results":[{"plaintext":"!"},{"ciphertext":"vault:v1:AA"}]}}`))
	f.Add([]byte(`{"data":null}`))
	f.Add([]byte(`[`))
	k := &Keyring{opts: Options{Arena: secret.NewArena(nil)}}
	f.Fuzz(func(t *testing.T, body []byte) {
		results, ok := parseResults(body, 2)
		if !ok {
			return
		}
		if len(results) != 2 {
			t.Fatalf("%d results", len(results))
		}
		for _, r := range results {
			u := k.unwrapped(r)
			if (u.Key == nil) == (u.Err == nil) {
				t.Fatalf("key and error: %v", u)
			}
			u.Key.Wipe()
			if rw := rewrapped("vault:v1:AA", r); (rw.Wrapped == "") == (rw.Err == nil) {
				t.Fatalf("wrapped and error: %v", rw)
			}
		}
	})
}

// TestDialerGivesUp: a connection whose other side has gone without a word is given up after seconds, not minutes.
func TestDialerGivesUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := newDialer().DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]struct{ level, number, want int }{
		"without an acknowledgement, ms": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 4000},
		"asks after, s":                  {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5},
		"asks at all":                    {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	} {
		var got int
		var getErr error
		if err := raw.Control(func(fd uintptr) { got, getErr = unix.GetsockoptInt(int(fd), option.level, option.number) }); err != nil || getErr != nil {
			t.Fatal(err, getErr)
		}
		if got != option.want {
			t.Errorf("%s: %d, want %d", name, got, option.want)
		}
	}
}
