package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/volume"
)

// versionReport is what envfs version says. Programs may read it.
type versionReport struct {
	Version  string `json:"version"`            // of the module, "(devel)" if built from a work tree
	Revision string `json:"revision,omitempty"` // of the source
	Modified bool   `json:"modified,omitempty"` // the source was changed after that revision
	Time     string `json:"time,omitempty"`     // of that revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Format   int    `json:"format"` // newest format of volumes that it reads
}

func newVersion(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version [flags]",
		Short:   "say which version this is",
		Long:    "Say which version this is, from which source it was built, and which formats of\nvolumes it reads.",
		Example: "  envfs version\n  envfs version --json",
		Args:    operands(),
		RunE: func(*cobra.Command, []string) error {
			report := newVersionReport(debug.ReadBuildInfo())
			if asJSON {
				return writeJSON(a, report)
			}
			fmt.Fprint(a.stdout, report)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newVersionReport(info *debug.BuildInfo, ok bool) versionReport {
	r := versionReport{
		Version: "(unknown)", Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, Format: volume.Format,
	}
	if !ok {
		return r
	}
	r.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			r.Revision = s.Value
		case "vcs.modified":
			r.Modified = s.Value == "true"
		case "vcs.time":
			r.Time = s.Value
		}
	}
	return r
}

func (r versionReport) String() string {
	text := "envfs " + r.Version
	if r.Revision != "" {
		text += "\nrevision " + r.Revision
		if r.Time != "" {
			text += " of " + r.Time
		}
		if r.Modified {
			text += ", modified"
		}
	}
	return fmt.Sprintf("%s\nbuilt with %s for %s\nreads volumes of format %d\n", text, r.Go, r.Platform, r.Format)
}

// writeJSON prints a report for programs.
func writeJSON(a *app, report any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}
