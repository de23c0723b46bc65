package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/envfs/envfs/crypto"
)

var (
	errJournal = errors.New("rekey journal")
	// ErrOtherJournal: a file that is no journal of rekeying this volume.
	ErrOtherJournal = errors.New("not a rekey journal of this volume")
)

const journalTitle = "envfs rekey journal of volume "

// RekeyJournal is a text file that remembers which files have been rekeyed, so that a rekey of a tree that was stopped can go
// on where it was. After a title line with the volume's ID it lists the new file ID of each file, one a line: a file that
// bears one of these IDs is left out, wherever it was moved. The ID is written before the file is put in place, so that
// nothing is done twice; that of a file that was not put in place stands for nothing.
//
// It is safe for concurrent use. A nil *RekeyJournal remembers nothing.
type RekeyJournal struct {
	mu   sync.Mutex
	file *os.File           // guarded by mu
	done map[crypto.ID]bool // guarded by mu
}

// OpenRekeyJournal opens the journal at path, or makes one.
func (v *Volume) OpenRekeyJournal(path string) (*RekeyJournal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	j := &RekeyJournal{file: f, done: make(map[crypto.ID]bool)}
	if err := j.load(journalTitle + v.cfg.VolumeID.String()); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return j, nil
}

// load reads what is there. A last line without its end was cut by a crash: it ends here.
func (j *RekeyJournal) load(title string) error {
	st, err := j.file.Stat()
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		_, err := j.file.WriteString(title + "\n")
		return err
	}
	lines := bufio.NewScanner(j.file)
	if !lines.Scan() || lines.Text() != title {
		return ErrOtherJournal
	}
	for lines.Scan() {
		var id crypto.ID
		if decodeHex(id[:], lines.Text()) == nil {
			j.done[id] = true
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	last := make([]byte, 1)
	if _, err := j.file.ReadAt(last, st.Size()-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = j.file.WriteString("\n")
	return err
}

func (j *RekeyJournal) has(id crypto.ID) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.done[id]
}

// note remembers the ID of a file that is about to be put in place.
func (j *RekeyJournal) note(id crypto.ID) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done[id] = true
	if _, err := j.file.WriteString(id.String() + "\n"); err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	return nil
}

// Close makes the journal durable and closes it.
func (j *RekeyJournal) Close() error {
	if j == nil {
		return nil
	}
	return errors.Join(j.file.Sync(), j.file.Close())
}
