package vault

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/keyring"
)

// controlTimeout bounds a login, a look-up or a renewal.
const controlTimeout = 10 * time.Second

// newClients makes two clients over one pool of connections: one for logins and
// renewals, with a timeout of its own because the library renews without a
// context, and one for batches, whose callers have deadlines.
func newClients(o Options) (control, data *api.Client, err error) {
	conf := api.DefaultConfig() // reads VAULT_ADDR, VAULT_CACERT, VAULT_CLIENT_CERT, …
	if conf.Error != nil {
		return nil, nil, configError("look at the VAULT_* variables of the environment", "%w", conf.Error)
	}
	if o.Address != "" {
		conf.Address, conf.AgentAddress = o.Address, ""
	}
	conf.MaxRetries = 0
	conf.Timeout = controlTimeout
	if t, ok := conf.HttpClient.Transport.(*http.Transport); ok {
		t.MaxIdleConnsPerHost = 16 // as many as may be under way, or each burst opens new ones
		rereadClientCertificate(t)
	}
	control, err = api.NewClient(conf)
	if err != nil {
		return nil, nil, configError("", "%w", err)
	}
	if o.Namespace != "" {
		control.SetNamespace(o.Namespace)
	}
	data, err = control.CloneWithHeaders()
	if err != nil {
		return nil, nil, configError("", "%w", err)
	}
	data.SetClientTimeout(0)
	data.SetMaxRetries(0)
	control.ClearToken() // the session decides
	return control, data, nil
}

// addressOf returns where a client's requests go, as it was given: the client's
// own Address lacks the path of a Unix socket.
func addressOf(client *api.Client) string {
	conf := client.CloneConfig()
	if conf.AgentAddress != "" {
		return conf.AgentAddress
	}
	return conf.Address
}

// transportError gives the lack of an answer its class. A certificate that is
// refused stays refused.
func transportError(op string, client *api.Client, err error) error {
	e := &keyring.Error{Class: keyring.ErrUnreachable, Op: op, Err: err,
		Hint: fmt.Sprintf("is vault running at %s? VAULT_ADDR says where to look", addressOf(client))}
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) {
		e.Class = keyring.ErrConfig
		e.Hint = "VAULT_CACERT names the certificate authority to trust"
	}
	return e
}
