package secret

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// lockAll locks pages when they are first used, not what is only reserved.
const lockAll = unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT

// ProtectProcess keeps the memory of the whole process to itself: no core dumps
// (RLIMIT_CORE 0), no dumps and no ptrace by others of the same user
// (PR_SET_DUMPABLE 0), and no swapping where the process may lock memory without
// a limit. What the system refuses is logged and left. A nil log discards. Call it
// once, early in the life of a process that will hold keys.
func ProtectProcess(log *slog.Logger) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		log.Warn("the process can be dumped by its user", "err", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		log.Warn("core dumps cannot be turned off", "err", err)
	}
	raiseLockLimit()
	if !mayLockAll() {
		log.Debug("process memory is not locked as a whole: RLIMIT_MEMLOCK is finite")
		return
	}
	if err := unix.Mlockall(lockAll); err != nil {
		log.Debug("process memory is not locked as a whole", "err", err)
	}
}

// raiseLockLimit allows as much locked memory as the system lets this process
// have: no limit for the privileged, the hard limit for others. A refusal leaves
// what was.
func raiseLockLimit() {
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited) == nil {
		return
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) // best effort, see above
	}
}

// mayLockAll reports whether no limit on locked memory applies. Under a finite one
// MCL_FUTURE would make the Go runtime's own mappings fail, which ends the process;
// CAP_IPC_LOCK does not count, because inside a user namespace the kernel ignores
// it. Without a limit it is harmless: where madvise refuses to release locked
// pages, the runtime maps fresh ones over them (a test watches memory going back).
func mayLockAll() bool {
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur == unix.RLIM_INFINITY
}
