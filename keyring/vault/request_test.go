package vault_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
)

// script is a server that answers Open as Vault does and leaves the rest to a
// test: answers that a real one gives only under special conditions.
type script struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string // of the POST requests
	header http.Header
}

// newScript answers the n-th POST, from 0, by answer.
func newScript(t *testing.T, answer func(n int, w http.ResponseWriter, body string)) *script {
	t.Helper()
	clearEnv(t)
	s := &script{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/auth/token/lookup-self":
			fmt.Fprint(w, `{"data":{"ttl":0,"renewable":false}}`)
		case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/transit/keys/"):
			fmt.Fprint(w, `{"data":{"type":"aes256-gcm96","latest_version":2,"supports_encryption":true,"supports_decryption":true}}`)
		default:
			body, _ := io.ReadAll(r.Body)
			s.mu.Lock()
			n := len(s.bodies)
			s.bodies = append(s.bodies, string(body))
			s.header = r.Header.Clone()
			s.mu.Unlock()
			answer(n, w, string(body))
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("VAULT_TOKEN", "hvs.test")
	return s
}

func (s *script) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bodies)
}

func (s *script) open(t *testing.T) *vault.Keyring {
	t.Helper()
	return mustOpen(t, vault.Options{Key: "docs", Address: s.URL, Namespace: "team/a", Wait: 5 * time.Second})
}

// echo answers a decryption with the ciphertexts' own bytes as plaintexts.
func echo(w http.ResponseWriter, body string) {
	var in struct {
		Input []struct{ Ciphertext string } `json:"batch_input"`
	}
	_ = json.Unmarshal([]byte(body), &in)
	var out []map[string]string
	for _, item := range in.Input {
		out = append(out, map[string]string{"plaintext": strings.TrimPrefix(item.Ciphertext, "vault:v1:")})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"batch_results": out}})
}

const someWrapped = "vault:v1:c29tZSBrZXk=" // "some key"

func TestRetriesWhatMayPass(t *testing.T) {
	for _, status := range []int{412, 429, 472, 473, 500, 502, 503, 504} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := newScript(t, func(n int, w http.ResponseWriter, body string) {
				if n < 2 {
					w.WriteHeader(status)
					fmt.Fprint(w, `{"errors":["wait"]}`)
					return
				}
				echo(w, body)
			})
			out, err := s.open(t).Unwrap(t.Context(), []keyring.Wrapped{someWrapped})
			if err != nil || out[0].Err != nil || string(out[0].Key.Bytes()) != "some key" {
				t.Fatalf("%v, %v", err, out)
			}
			if n := s.requests(); n != 3 {
				t.Errorf("%d requests; want 3", n)
			}
			if ns := s.header.Get("X-Vault-Namespace"); ns != "team/a" {
				t.Errorf("namespace %q", ns)
			}
		})
	}
}

func TestFinalAnswersAreNotRetried(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		class  error
	}{
		{400, `{"errors":["encryption key not found"]}`, keyring.ErrRevoked},
		{403, `{"errors":["permission denied"]}`, keyring.ErrDenied},
		{404, `{"errors":["no handler for route"]}`, keyring.ErrConfig},
		{405, `<html>a proxy`, keyring.ErrConfig},
		// Every item failed: Vault then keeps the error's status.
		{400, `{"data":{"batch_results":[{"error":"cipher: message authentication failed"}]}}`, keyring.ErrCorrupt},
		{500, `{"data":{"batch_results":[{"error":"failed to RSA decrypt the ciphertext"}]}}`, keyring.ErrCorrupt},
		{200, `{"data":{"batch_results":[{"error":"ciphertext or signature version is disallowed by policy (too old)"}]}}`, keyring.ErrRevoked},
		{200, `{"data":{"batch_results":[{"plaintext":""}]}}`, keyring.ErrCorrupt},
		{200, `{"data":{"batch_results":[{}]}}`, keyring.ErrCorrupt},
		{200, `{"data":{"batch_results":[{"plaintext":"` + base64.StdEncoding.EncodeToString(make([]byte, 65)) + `"}]}}`, keyring.ErrCorrupt},
		// None of Transit's replies.
		{200, `{"data":{"batch_results":[]}}`, keyring.ErrUnreachable},
		{200, `{"data":{"batch_results":[{"plaintext":"AAAA"},{"plaintext":"AAAA"}]}}`, keyring.ErrUnreachable},
		{200, `{"data":{"batch_results":[{"plaintext":"no base64"}]}}`, keyring.ErrUnreachable},
		{200, `<html>a captive portal`, keyring.ErrUnreachable},
		{200, ``, keyring.ErrUnreachable},
		{400, `{"data":{"batch_results":"garbage"}}`, keyring.ErrUnreachable},
	} {
		t.Run(fmt.Sprintf("%d %.70s", c.status, c.body), func(t *testing.T) {
			s := newScript(t, func(_ int, w http.ResponseWriter, _ string) {
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			})
			err := unwrapError(t.Context(), s.open(t), someWrapped)
			if keyring.Class(err) != c.class {
				t.Errorf("%v; want %v", err, c.class)
			}
			if n := s.requests(); n != 1 {
				t.Errorf("%d requests; want 1", n)
			}
		})
	}
}

// A standby that does not forward sends the client to the active server, which
// must get the whole request.
func TestRedirectKeepsBody(t *testing.T) {
	active := newScript(t, func(_ int, w http.ResponseWriter, body string) { echo(w, body) })
	standby := newScript(t, func(_ int, w http.ResponseWriter, _ string) {
		w.Header().Set("Location", active.URL+"/v1/transit/decrypt/docs")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	out, err := standby.open(t).Unwrap(t.Context(), []keyring.Wrapped{someWrapped})
	if err != nil || out[0].Err != nil || string(out[0].Key.Bytes()) != "some key" {
		t.Fatalf("%v, %v", err, out)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	s := newScript(t, func(_ int, w http.ResponseWriter, body string) { echo(w, body) })
	wrapped := make([]keyring.Wrapped, 300)
	for i := range wrapped {
		wrapped[i] = keyring.Wrapped("vault:v1:" + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "key %d", i)))
	}
	wrapped[7] = "" // with an empty item Vault would refuse all the others
	out, err := s.open(t).Unwrap(t.Context(), wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range out {
		if i == 7 {
			if keyring.Class(u.Err) != keyring.ErrCorrupt {
				t.Errorf("empty item: %v", u.Err)
			}
			continue
		}
		if u.Err != nil || string(u.Key.Bytes()) != fmt.Sprintf("key %d", i) {
			t.Fatalf("item %d: %v", i, u.Err)
		}
	}
	if n := s.requests(); n != 3 {
		t.Errorf("%d requests; want 3", n)
	}
	for _, body := range s.bodies {
		if n := strings.Count(body, `"ciphertext"`); n > keyring.DefaultBatch {
			t.Errorf("a request of %d items", n)
		}
	}
}

// A server that refuses a whole request because of one item is asked for each.
func TestPoisonedBatchIsAskedSingly(t *testing.T) {
	s := newScript(t, func(_ int, w http.ResponseWriter, body string) {
		if strings.Contains(body, "vault:v1:AAAA") {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"errors":["failed to RSA decrypt the ciphertext: crypto/rsa: decryption error"]}`)
			return
		}
		echo(w, body)
	})
	out, err := s.open(t).Unwrap(t.Context(), []keyring.Wrapped{someWrapped, "vault:v1:AAAA", someWrapped})
	if err != nil {
		t.Fatal(err)
	}
	if out[0].Err != nil || keyring.Class(out[1].Err) != keyring.ErrCorrupt || out[2].Err != nil {
		t.Errorf("%v, %v, %v; want only the second corrupt", out[0].Err, out[1].Err, out[2].Err)
	}
}

// Nothing that a server says makes a key that it wrapped unreadable later: a
// reply that is no ciphertext is refused.
func TestWrapRefusesBadReply(t *testing.T) {
	for _, ciphertext := range []string{"", "vault:v1:", "garbage", "vault:v1:AA\nAA", "vault:v1:" + strings.Repeat("A", keyring.MaxWrapped)} {
		s := newScript(t, func(_ int, w http.ResponseWriter, _ string) {
			_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"batch_results": []map[string]string{{"ciphertext": ciphertext}}}})
		})
		k := s.open(t)
		keys, _ := newKeys(1)
		if _, err := k.Wrap(t.Context(), keys); keyring.Class(err) != keyring.ErrUnreachable {
			t.Errorf("%.30q: %v; want an error", ciphertext, err)
		}
	}
}
