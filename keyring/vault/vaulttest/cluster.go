package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Cluster is the part of a Kubernetes API server that Vault asks: TokenReview,
// for tokens of service accounts that the cluster has signed.
type Cluster struct {
	tb  testing.TB
	key *ecdsa.PrivateKey
}

// claims are those of a service account's token.
type claims struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Issued  int64  `json:"iat"`
	Begins  int64  `json:"nbf"`
	Expires int64  `json:"exp"`
	Serial  string `json:"jti"`
	Account struct {
		Namespace string  `json:"namespace"`
		Account   account `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

type account struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Cluster runs a cluster for the length of the test, and has the login method
// kubernetes ask it.
func (s *Server) Cluster() *Cluster {
	s.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.tb.Fatal(err)
	}
	c := &Cluster{tb: s.tb, key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", c.review)
	server := httptest.NewTLSServer(mux)
	s.tb.Cleanup(server.Close)
	s.Write("auth/kubernetes/config", map[string]any{
		"kubernetes_host":      server.URL,
		"kubernetes_ca_cert":   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
		"token_reviewer_jwt":   c.Token("kube-system", "reviewer", time.Hour),
		"disable_local_ca_jwt": true,
	})
	return c
}

// Token signs a token for a service account.
func (c *Cluster) Token(namespace, name string, life time.Duration) string {
	c.tb.Helper()
	var body claims
	body.Issuer = "https://kubernetes.default.svc.cluster.local"
	body.Subject = "system:serviceaccount:" + namespace + ":" + name
	body.Issued = time.Now().Add(-time.Hour).Unix()
	body.Begins = body.Issued
	body.Expires = time.Now().Add(life).Unix()
	body.Serial = rand.Text()
	body.Account.Namespace, body.Account.Account = namespace, account{name, "uid-" + name}
	payload, err := json.Marshal(body)
	if err != nil {
		c.tb.Fatal(err)
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + enc.EncodeToString(payload)
	hash := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, hash[:])
	if err != nil {
		c.tb.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + enc.EncodeToString(signature)
}

// verify checks signature and age.
func (c *Cluster) verify(token string) (claims, bool) {
	var body claims
	signed, last, _ := cutLast(token, ".")
	_, payload, _ := strings.Cut(signed, ".")
	signature, err1 := base64.RawURLEncoding.DecodeString(last)
	text, err2 := base64.RawURLEncoding.DecodeString(payload)
	if err1 != nil || err2 != nil || len(signature) != 64 || json.Unmarshal(text, &body) != nil {
		return body, false
	}
	hash := sha256.Sum256([]byte(signed))
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	return body, ecdsa.Verify(&c.key.PublicKey, hash[:], r, s) && time.Now().Unix() < body.Expires
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// review answers a TokenReview, as authentication.k8s.io/v1 has it.
func (c *Cluster) review(w http.ResponseWriter, req *http.Request) {
	var ask struct {
		Spec struct {
			Token string `json:"token"`
		} `json:"spec"`
	}
	if _, ok := c.verify(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")); !ok {
		http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":401}`, http.StatusUnauthorized)
		return
	}
	if err := json.NewDecoder(req.Body).Decode(&ask); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	status := map[string]any{"authenticated": false, "error": "invalid bearer token"}
	if who, ok := c.verify(ask.Spec.Token); ok {
		status = map[string]any{"authenticated": true, "user": map[string]any{"username": who.Subject, "uid": who.Account.Account.UID}}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
}
