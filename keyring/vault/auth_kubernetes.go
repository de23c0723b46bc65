package vault

import (
	"context"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/kubernetes"
)

// serviceAccountToken is where Kubernetes puts the token of a pod's service
// account, and replaces it before it expires.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path

// kubernetesLogin logs in as a service account, for a role.
type kubernetesLogin struct{ role, file, mount string }

func newKubernetesLogin(o Options) (loginMethod, error) {
	if o.Role == "" {
		return nil, configError("", "login by kubernetes needs the name of a role")
	}
	k := kubernetesLogin{role: o.Role, file: o.ServiceAccountFile, mount: o.authMount(MethodKubernetes)}
	if k.file == "" {
		k.file = serviceAccountToken
	}
	return k, nil
}

func (k kubernetesLogin) String() string { return "kubernetes role " + k.role }

func (k kubernetesLogin) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	jwt, err := credentialOf(k.file)
	if err != nil {
		return nil, err
	}
	method, err := kubernetes.NewKubernetesAuth(k.role, kubernetes.WithServiceAccountToken(jwt), kubernetes.WithMountPath(k.mount))
	if err != nil {
		return nil, denied("", err)
	}
	reply, err := method.Login(ctx, client)
	return loggedIn(client, reply, err)
}
