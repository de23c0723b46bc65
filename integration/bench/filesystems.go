package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// fileSystem says how a file system is made and mounted. In the commands {t}
// is the program, {c} the ciphertext folder, {m} the mountpoint, {s} a file
// with a passphrase and {l} a log file. {c}.state may be used too.
type fileSystem struct {
	name    string
	program string   // "": the bare folder
	debian  string   // package that has the program; "": none
	init    []string // makes a volume in the empty {c}; nil: mount does
	mount   []string
	stdin   bool     // mount reads the passphrase from standard input
	env     []string // of both commands
}

// benchPassphrase is in {s}.
const benchPassphrase = "bench-secret"

// fileSystems returns all that can be measured, each as it is by default.
func fileSystems() []fileSystem {
	envfsInit := []string{"{t}", "init", "--passphrase-file", "{s}", "{c}"}
	return []fileSystem{
		{name: "native"},
		{
			name: "envfs", program: "envfs", init: envfsInit,
			mount: []string{"{t}", "mount", "--log-file", "{l}", "--passphrase-file", "{s}", "{c}", "{m}"},
		},
		{
			name: "envfs-wt", program: "envfs", init: envfsInit,
			mount: []string{"{t}", "mount", "--cache=writethrough", "--log-file", "{l}", "--passphrase-file", "{s}", "{c}", "{m}"},
		},
		{
			name: "gocryptfs", program: "gocryptfs", debian: "gocryptfs",
			init:  []string{"{t}", "-q", "-init", "-passfile", "{s}", "-scryptn", "10", "{c}"},
			mount: []string{"{t}", "-q", "-passfile", "{s}", "{c}", "{m}"},
		},
		{
			name: "securefs", program: "securefs", debian: "securefs",
			init:  []string{"{t}", "create", "--pass", benchPassphrase, "{c}"},
			mount: []string{"{t}", "mount", "-b", "--pass", benchPassphrase, "{c}", "{m}"},
		},
		{
			name: "encfs", program: "encfs", debian: "encfs",
			mount: []string{"{t}", "--standard", "--extpass=cat {s}", "{c}", "{m}"},
		},
		{
			name: "cryfs", program: "cryfs", debian: "cryfs", stdin: true,
			mount: []string{"{t}", "{c}", "{m}"},
			env:   []string{"CRYFS_FRONTEND=noninteractive", "CRYFS_LOCAL_STATE_DIR={c}.state"},
		},
	}
}

func fileSystemNames() (names []string) {
	for _, fs := range fileSystems() {
		names = append(names, fs.name)
	}
	return names
}

func fileSystemNamed(name string) fileSystem {
	all := fileSystems()
	return all[slices.IndexFunc(all, func(fs fileSystem) bool { return fs.name == name })]
}

// path finds the program: where its variable says, else in bin (envfs only),
// else in PATH.
func (fs fileSystem) path() (string, error) {
	if named := os.Getenv(strings.ToUpper(fs.program)); named != "" {
		return find(named)
	}
	if built := "bin/" + fs.program; fs.debian == "" {
		if _, err := os.Stat(built); err == nil {
			return find(built)
		}
	}
	return find(fs.program)
}

// find is exec.LookPath with an absolute result.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// available drops the file systems whose programs are not there, and says so.
func available(names []string, stderr io.Writer) (found []fileSystem) {
	for _, name := range names {
		fs := fileSystemNamed(name)
		if fs.program != "" {
			if _, err := fs.path(); err != nil {
				fmt.Fprintf(stderr, "%s: skipped: %v\n", name, err)
				continue
			}
		}
		found = append(found, fs)
	}
	return found
}

// install installs the packages of programs that are missing. What cannot be
// installed is skipped later.
func install(r *runner, names []string, stderr io.Writer) {
	var packages []string
	if _, err := exec.LookPath("fio"); err != nil {
		packages = append(packages, "fio")
	}
	for _, name := range names {
		fs := fileSystemNamed(name)
		if fs.debian == "" || slices.Contains(packages, fs.debian) {
			continue
		}
		if _, err := fs.path(); err != nil {
			packages = append(packages, fs.debian)
		}
	}
	if len(packages) == 0 {
		return
	}
	fmt.Fprintln(stderr, "installing:", strings.Join(packages, " "))
	apt := runner{ctx: r.ctx, env: []string{"DEBIAN_FRONTEND=noninteractive"}}
	if _, err := apt.output("apt-get", "update", "-qq"); err != nil {
		fmt.Fprintln(stderr, "not up to date:", err)
	}
	for _, name := range packages { // one by one: a package that is missing spoils only itself
		if _, err := apt.output("apt-get", "install", "-y", "-qq", name); err != nil {
			fmt.Fprintln(stderr, "not installed:", err)
		}
	}
}
