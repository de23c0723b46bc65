package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/envfs/envfs/keyring/local"
)

// The bounds of what a passphrase may cost. The keyring has its own, wider
// ones; these keep a slip of the finger from making a volume that no machine
// opens in reasonable time.
const (
	minArgon2Memory = 64   // MiB
	maxArgon2Memory = 2048 // MiB
	maxArgon2Time   = 32   // passes
)

// argon2Settings say what it costs to try a passphrase.
type argon2Settings struct{ memory, time uint32 }

func (s *argon2Settings) addFlags(flags *pflag.FlagSet) {
	d := local.DefaultParams()
	flags.Uint32Var(&s.memory, "argon2-memory", d.MemoryKiB>>10, "memory in `MIB` that trying a passphrase takes")
	flags.Uint32Var(&s.time, "argon2-time", d.Time, "`PASSES` over that memory")
}

func (s *argon2Settings) check(cmd *cobra.Command) error {
	if s.memory < minArgon2Memory || s.memory > maxArgon2Memory {
		return usagef(cmd, "--argon2-memory must be %d to %d (MiB)", minArgon2Memory, maxArgon2Memory)
	}
	if s.time < 1 || s.time > maxArgon2Time {
		return usagef(cmd, "--argon2-time must be 1 to %d", maxArgon2Time)
	}
	return nil
}

func (s *argon2Settings) params() local.Params {
	p := local.DefaultParams()
	p.MemoryKiB, p.Time = s.memory<<10, s.time
	return p
}
