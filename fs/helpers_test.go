package fs

// helpers are the tasks of processes that a test or a scenario starts, by name: each gets a directory and arguments.
func helpers() map[string]func(dir string, args []string) error {
	return map[string]func(dir string, args []string) error{
		"fifo-writer":   fifoWriter,
		"socket-client": socketClient,
		"lock-holder":   lockHolder,
		"msync":         mapAndSync,
		"churn":         churn,
		"perform":       perform,
		"mirror":        mirror,
		"interrupted":   openInterrupted,
		"count":         count,
		"save":          save,
	}
}
