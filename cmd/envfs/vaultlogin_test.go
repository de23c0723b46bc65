package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/envfs/envfs/keyring/vault"
)

func TestLoginSettings(t *testing.T) {
	t.Chdir("/")
	for args, want := range map[string]vault.Options{
		"":                   {},
		"--vault-auth token": {Method: "token"},
		"--vault-auth agent --vault-addr unix:///a.sock": {Method: "agent", Address: "unix:///a.sock"},
		"--token-file t": {Method: "token", TokenFile: "/t"},
		"--approle-role-id r --approle-secret-id-file s":        {Method: "approle", RoleID: "r", SecretIDFile: "/s"},
		"-o approle-role-id=r,approle-wrapped-secret-id-file=w": {Method: "approle", RoleID: "r", WrappedSecretIDFile: "/w"},
		"--vault-auth kubernetes --vault-role r":                {Method: "kubernetes", Role: "r"},
		"--kubernetes-token-file t --vault-role r --vault-auth kubernetes --vault-auth-mount k8s/eu": {
			Method: "kubernetes", Role: "r", ServiceAccountFile: "/t", AuthMount: "k8s/eu"},
		"-o vault-auth=userpass,userpass-username=ann,userpass-password-file=p": {Method: "userpass", Username: "ann", PasswordFile: "/p"},
		"--userpass-username ann --userpass-password-file /p":                   {Method: "userpass", Username: "ann", PasswordFile: "/p"},
		"--vault-auth cert":                {Method: "cert"},
		"--vault-auth cert --vault-role r": {Method: "cert", Role: "r"},
	} {
		r, err := parseMount(strings.Fields(args)...)
		got := vault.Options{Address: r.Keys.VaultAddr}
		r.Keys.Login.fill(&got)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q gives\n%+v, %v, want\n%+v", args, got, err, want)
		}
	}
}

func TestLoginSettingsRefused(t *testing.T) {
	for args, want := range map[string]string{
		"--vault-auth magic":                        "token|approle|kubernetes|userpass|cert|agent",
		"--vault-auth approle":                      "belong together",
		"--approle-role-id r":                       "belong together",
		"--vault-auth kubernetes":                   "needs --vault-role",
		"--vault-auth userpass":                     "belong together",
		"--userpass-username ann":                   "belong together",
		"--vault-role r":                            "--vault-role needs --vault-auth kubernetes or cert",
		"--kubernetes-token-file t":                 "needs --vault-role",
		"--vault-auth agent --token-file t":         "--vault-auth agent and --token-file exclude each other",
		"--vault-auth cert --userpass-username ann": "--vault-auth cert and --userpass-username exclude each other",
		"--token-file t --userpass-username ann":    "--token-file and --userpass-username exclude each other",
		"--vault-auth userpass --vault-role r":      "--vault-auth userpass and --vault-role exclude each other",
		"--approle-role-id r --approle-secret-id-file s --approle-wrapped-secret-id-file w": "exclude each other",
	} {
		_, err := parseMount(strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
			t.Errorf("%q gives %v with exit code %d, want %q", args, err, exitCode(err), want)
		}
	}
}
