package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/vault/api"
)

// Health is what a server tells anybody who asks.
type Health struct {
	Version     string
	Initialized bool
	Sealed      bool
	Standby     bool
	TLS         bool
	CertExpiry  time.Time     // of the server's certificate; zero without TLS
	Skew        time.Duration // by how much the server's clock is ahead of this one, to the second
}

// Health asks for the server's state. An answer is no error, whatever it says.
func (p *Probe) Health(ctx context.Context) (Health, error) {
	ctx, cancel := p.k.bounded(ctx)
	defer cancel()
	const op = "reach vault"
	client, err := p.k.session.anonymous()
	if err != nil {
		return Health{}, err
	}
	client.ClearNamespace() // it is known in the root namespace only
	req := client.NewRequest(http.MethodGet, "/v1/sys/health")
	for _, state := range []string{"uninitcode", "sealedcode", "standbycode", "drsecondarycode", "performancestandbycode", "removedcode", "haunhealthycode"} {
		req.Params.Set(state, "299")
	}
	asked := time.Now()
	//lint:ignore SA1019 the others hide the header
	resp, err := client.RawRequestWithContext(ctx, req)
	if resp != nil {
		defer resp.Body.Close()
	}
	var refused *api.ResponseError
	switch {
	case errors.As(err, &refused) && resp != nil:
		return Health{}, requestError(op, newAnswer(refused, resp))
	case err != nil:
		var request *url.Error
		if errors.As(err, &request) { // the address is in the hint
			err = request.Err
		}
		return Health{}, transportError(op, client, err)
	}
	var reply struct {
		Initialized, Sealed, Standby bool
		Version                      string
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<16)).Decode(&reply); err != nil {
		return Health{}, badReply(op)
	}
	h := Health{Version: reply.Version, Initialized: reply.Initialized, Sealed: reply.Sealed, Standby: reply.Standby}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		h.Skew = skew(date, asked, time.Now())
	}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		h.TLS, h.CertExpiry = true, resp.TLS.PeerCertificates[0].NotAfter
	}
	return h, nil
}

// skew compares a date, which is cut to the second, with the time in which it
// was made. It is 0 if the date fits.
func skew(date, from, to time.Time) time.Duration {
	switch {
	case date.Add(time.Second).Before(from):
		return date.Add(time.Second).Sub(from).Truncate(time.Second)
	case date.After(to):
		return date.Sub(to).Round(time.Second)
	}
	return 0
}
