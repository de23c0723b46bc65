package main

import (
	"strings"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

func TestServiceFlags(t *testing.T) {
	for args, change := range map[string]func(s *serviceSettings){
		"":                                func(*serviceSettings) {},
		"--key-ttl 1m --outage-grace 0":   func(s *serviceSettings) { s.KeyTTL, s.OutageGrace = time.Minute, 0 },
		"-o key-ttl=1h,vault-wait=1s":     func(s *serviceSettings) { s.KeyTTL, s.Wait = time.Hour, time.Second },
		"-o pool-size=1,pool-low-water=1": func(s *serviceSettings) { s.PoolSize, s.PoolLowWater = 1, 1 },
	} {
		want := defaultServiceSettings()
		change(&want)
		if got, err := parseMount(strings.Fields(args)...); err != nil || got.Service != want {
			t.Errorf("%q gives %+v, %v", args, got.Service, err)
		}
	}
	for args, want := range map[string]string{
		"--key-ttl 0":                        "--key-ttl must be more than 0",
		"--outage-grace -1s":                 "--outage-grace must not be negative",
		"--vault-wait 0":                     "--vault-wait must be more than 0",
		"--pool-size 0":                      "--pool-size must be from 1 to",
		"--pool-size 16385":                  "--pool-size must be from 1 to",
		"--pool-size 10 --pool-low-water 11": "from 0 to the size of the pool, 10",
		"--pool-low-water -1":                "from 0 to the size of the pool",
	} {
		if _, err := parseMount(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, want %q", args, err, want)
		}
	}
}

// TestOpenOptions: keys that a passphrase opened stay, because there is nobody to
// ask for them again.
func TestOpenOptions(t *testing.T) {
	r, err := parseMount("--key-ttl", "1m", "--outage-grace", "2m", "--pool-size", "9", "--pool-low-water", "3", "--vault-wait", "7s", "-o", "ro")
	if err != nil {
		t.Fatal(err)
	}
	if wait := r.fsOptions(nil).KeyWait; wait != 7*time.Second {
		t.Errorf("an open waits for %v", wait)
	}
	for kind, want := range map[string]keyring.CacheOptions{
		volume.KeyringLocal: {TTL: -1}, volume.KeyringVault: {TTL: time.Minute, Grace: 2 * time.Minute},
	} {
		o := r.openOptions(&volume.Config{Keyring: volume.KeyringRef{Type: kind}}, nil, nil)
		if o.Cache.TTL != want.TTL || o.Cache.Grace != want.Grace || o.Prefetch != (kind == volume.KeyringVault) ||
			!o.ReadOnly || o.Pool.Size != 9 || o.Pool.LowWater != 3 {
			t.Errorf("%s: %+v", kind, o)
		}
	}
}
