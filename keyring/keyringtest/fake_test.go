package keyringtest_test

import (
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring/keyringtest"
)

func TestFakeContract(t *testing.T) {
	keyringtest.Run(t, func(t *testing.T) keyringtest.Fixture {
		arena := secret.NewArena(nil)
		fake := keyringtest.NewFake(arena)
		return keyringtest.Fixture{
			Arena:   arena,
			Keyring: fake,
			Other:   keyringtest.NewFake(arena),
			Rotate:  func(*testing.T) { fake.Rotate() },
		}
	})
}
