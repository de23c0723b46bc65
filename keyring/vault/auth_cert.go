package vault

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"

	"github.com/hashicorp/vault/api"
)

// certLogin logs in by the client certificate of the connection.
type certLogin struct {
	role, mount string       // role: "" lets the server find the one that fits
	connections *http.Client // shared with all other requests
}

func newCertLogin(o Options, client *api.Client) (loginMethod, error) {
	if cert, key := clientCertificate(); cert == "" || key == "" {
		return nil, configError("set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY to PEM files", "login by cert needs a client certificate")
	}
	return certLogin{role: o.Role, mount: o.authMount(MethodCert), connections: client.CloneConfig().HttpClient}, nil
}

func (c certLogin) String() string { return "TLS certificate" }

func (c certLogin) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	// A connection from before would show the certificate from before.
	c.connections.CloseIdleConnections()
	credentials := map[string]any{}
	if c.role != "" {
		credentials["name"] = c.role
	}
	return postLogin(ctx, client, "auth/"+c.mount+"/login", credentials)
}

func clientCertificate() (cert, key string) {
	return os.Getenv(api.EnvVaultClientCert), os.Getenv(api.EnvVaultClientKey)
}

// rereadClientCertificate makes each new connection read the client certificate
// anew: those of a private authority are often short-lived. The library keeps
// the one that it has found at first.
func rereadClientCertificate(t *http.Transport) {
	cert, key := clientCertificate()
	if cert == "" || key == "" || t.TLSClientConfig == nil {
		return
	}
	t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}
}
