package fs

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"
)

// TestManyGoroutinesOneFile has 8 goroutines write their own parts of one file, over block edges, and read those of all.
func TestManyGoroutinesOneFile(t *testing.T) {
	const workers, part, rounds = 8, 10_007, 40
	for _, mode := range []Options{{}, {WriteThrough: true}} {
		r := newRig(t, mode)
		r.write("f", make([]byte, workers*part))
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() { workOnPart(t, r.path("f"), w, part, rounds, workers) })
		}
		wg.Wait()
		want := []byte{}
		for w := range workers {
			want = append(want, bytes.Repeat([]byte{byte(rounds), byte(w)}, part)[:part]...)
		}
		r.want("f", want)
		r.remount()
		r.want("f", want)
		r.unmount()
	}
}

// workOnPart overwrites one part again and again; what it reads there must be what it wrote.
func workOnPart(t *testing.T, path string, w, part, rounds, workers int) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	buf := make([]byte, part)
	for i := 1; i <= rounds; i++ {
		p := bytes.Repeat([]byte{byte(i), byte(w)}, part)[:part]
		if _, err := f.WriteAt(p, int64(w*part)); err != nil {
			t.Error(err)
			return
		}
		if _, err := f.ReadAt(buf, int64(w*part)); err != nil || !bytes.Equal(buf, p) {
			t.Errorf("worker %d, round %d: another content came back (%v)", w, i, err)
			return
		}
		if _, err := f.ReadAt(buf, int64((w+i)%workers*part)); err != nil {
			t.Error(err)
			return
		}
		if i%10 == 0 {
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestManyProcessesOneDirectory has 16 processes create, rename and remove in one directory.
func TestManyProcessesOneDirectory(t *testing.T) {
	r := newRig(t, Options{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if out, err := child(t.Context(), "churn", r.dir, fmt.Sprint(i)).CombinedOutput(); err != nil {
				t.Errorf("process %d: %v: %s", i, err, out)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) != 16*5+1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	r.remount()
	for i := range 16 {
		for j := range 5 {
			r.want(fmt.Sprintf("kept-%d-%d", i, j), fmt.Appendf(nil, "process %d, file %d", i, j*10))
		}
	}
	if left := len(storedNames(t, r.cipher)); left != 16*5+2 {
		t.Errorf("%d stored names", left)
	}
}

// churn makes 50 files, shares a name with the other processes, and keeps every tenth file.
func churn(dir string, args []string) error {
	id := args[0]
	for i := range 50 {
		name := fmt.Sprintf("%s/%s-%d-%s", dir, id, i, longName('x', 100+i*2))
		if err := os.WriteFile(name, fmt.Appendf(nil, "process %s, file %d", id, i), 0o644); err != nil {
			return err
		}
		shared := dir + "/shared"
		if err := os.WriteFile(name+".tmp", []byte(id), 0o644); err != nil {
			return err
		}
		if err := os.Rename(name+".tmp", shared); err != nil {
			return err
		}
		if _, err := os.ReadDir(dir); err != nil {
			return err
		}
		if i%10 == 0 {
			if err := os.Rename(name, fmt.Sprintf("%s/kept-%s-%d", dir, id, i/10)); err != nil {
				return err
			}
			continue
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}
