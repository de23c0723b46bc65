package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/envfs/envfs/fs"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

// serviceSettings say how a mount uses its key service.
type serviceSettings struct {
	KeyTTL       time.Duration // after which a key is asked for again
	OutageGrace  time.Duration // beyond KeyTTL, while the service gives no answer
	Wait         time.Duration // of an open for a key
	PoolSize     int
	PoolLowWater int // 0: half of PoolSize
}

func defaultServiceSettings() serviceSettings {
	return serviceSettings{
		KeyTTL: 5 * time.Minute, OutageGrace: time.Hour, Wait: fs.DefaultKeyWait, PoolSize: 256,
	}
}

// maxPoolSize bounds --pool-size: under demand a pool grows to eight times its
// size, in locked memory.
const maxPoolSize = 16_384

func (s *serviceSettings) addFlags(flags *pflag.FlagSet) {
	d := defaultServiceSettings()
	flags.DurationVar(&s.KeyTTL, "key-ttl", d.KeyTTL, "ask Vault again after `DURATION` whether a key may be used: how long a withdrawn right may go on")
	flags.DurationVar(&s.OutageGrace, "outage-grace", d.OutageGrace, "use known keys for `DURATION` longer while Vault gives no answer (0: not at all)")
	flags.DurationVar(&s.Wait, "vault-wait", d.Wait, "how long opening a file waits for Vault at most, as a `DURATION`")
	flags.IntVar(&s.PoolSize, "pool-size", d.PoolSize, "keep `N` wrapped keys ready for new files; more under load")
	flags.IntVar(&s.PoolLowWater, "pool-low-water", 0, "get new ones when fewer than `N` are left (default: half of --pool-size)")
}

func (s *serviceSettings) check(cmd *cobra.Command) error {
	switch {
	case s.KeyTTL <= 0:
		return usagef(cmd, "--key-ttl must be more than 0")
	case s.OutageGrace < 0:
		return usagef(cmd, "--outage-grace must not be negative")
	case s.Wait <= 0:
		return usagef(cmd, "--vault-wait must be more than 0")
	case s.PoolSize < 1 || s.PoolSize > maxPoolSize:
		return usagef(cmd, "--pool-size must be from 1 to %d", maxPoolSize)
	case s.PoolLowWater < 0 || s.PoolLowWater > s.PoolSize:
		return usagef(cmd, "--pool-low-water must be from 0 to the size of the pool, %d", s.PoolSize)
	}
	return nil
}

// openOptions are those of the volume of a mount. Keys that a passphrase opened
// are in this process anyway: they need no questions and no haste.
func (r *mountRequest) openOptions(cfg *volume.Config, arena *secret.Arena, log *slog.Logger) volume.OpenOptions {
	s := r.Service
	o := volume.OpenOptions{
		ReadOnly: r.Options.ReadOnly, Arena: arena, Log: log,
		Pool:  keyring.PoolOptions{Size: s.PoolSize, LowWater: s.PoolLowWater, Log: log},
		Cache: keyring.CacheOptions{TTL: -1, Inline: true},
	}
	if r.Safety == crashSafetyFull {
		o.CrashSafety = volume.SafeFull
	}
	if cfg.Keyring.Type == volume.KeyringVault {
		o.Prefetch = true
		o.Cache = keyring.CacheOptions{TTL: s.KeyTTL, Grace: s.OutageGrace}
	}
	return o
}
