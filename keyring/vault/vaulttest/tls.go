package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificate is a pair of PEM files.
type certificate struct{ cert, key string }

// newCertificate writes a self-signed certificate for 127.0.0.1 that serves as
// its own CA.
func newCertificate(tb testing.TB, dir string) certificate {
	tb.Helper()
	certPEM, keyPEM := selfSigned(tb, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "envfs test"},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	c := certificate{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	for path, text := range map[string]string{c.cert: certPEM, c.key: keyPEM} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return c
}

// ClientCertificate makes a self-signed certificate for the login method cert,
// and its key, in PEM.
func ClientCertificate(tb testing.TB, name string) (cert, key string) {
	tb.Helper()
	return selfSigned(tb, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// selfSigned completes a certificate and signs it by its own key.
func selfSigned(tb testing.TB, template *x509.Certificate) (certPEM, keyPEM string) {
	tb.Helper()
	check := func(err error) {
		if err != nil {
			tb.Fatalf("certificate: %v", err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}
