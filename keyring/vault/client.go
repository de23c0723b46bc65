package vault

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sys/unix"

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
		t.DialContext = newDialer().DialContext
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

// How long the network may say nothing. A server that works on a request keeps
// acknowledging, however long it takes; a cable that is cut does not, and
// without a limit the kernel would go on trying for minutes after its return.
const (
	dialTimeout = 3 * time.Second
	ackTimeout  = 4 * time.Second
	quietTime   = 5 * time.Second // then the kernel asks whether the other side is there
)

// newDialer returns what makes connections over TCP.
func newDialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: quietTime, Interval: time.Second, Count: 3},
		Control: func(_, _ string, conn syscall.RawConn) error {
			var err error
			controlErr := conn.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ackTimeout.Milliseconds()))
			})
			return errors.Join(err, controlErr)
		},
	}
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

// hintScheme is what to do about an address with http:// of a server with TLS, or the reverse.
const hintScheme = "the address of vault must begin with "

// transportError gives the lack of an answer its class. A certificate that is
// refused stays refused, and a server without TLS stays without.
func transportError(op string, client *api.Client, err error) error {
	e := &keyring.Error{Class: keyring.ErrUnreachable, Op: op, Err: err,
		Hint: fmt.Sprintf("is vault running at %s? VAULT_ADDR says where to look", addressOf(client))}
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) {
		e.Class = keyring.ErrConfig
		e.Hint = "VAULT_CACERT names the certificate authority to trust"
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		e.Class, e.Hint = keyring.ErrConfig, hintScheme+"http://"
	}
	return e
}
