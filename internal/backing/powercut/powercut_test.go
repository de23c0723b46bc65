package powercut

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// wander makes random calls of all kinds.
func wander(s *Script, rnd *rand.Rand, steps int) {
	files, dirs := []string{"a", "b", "d/a", "d/b", "e/a"}, []string{"d", "e"}
	s.Mkdir("d")
	s.Mkdir("e")
	for range steps {
		f, g := files[rnd.IntN(len(files))], files[rnd.IntN(len(files))]
		switch n := rnd.IntN(12); {
		case !s.Exists(f):
			s.Create(f)
		case n < 4:
			data := make([]byte, 1+rnd.IntN(9000))
			for i := range data {
				data[i] = byte(rnd.Uint32())
			}
			s.Write(f, data, rnd.Int64N(20_000))
		case n == 4:
			s.Truncate(f, rnd.Int64N(20_000))
		case n < 7:
			s.Sync(f)
		case n == 7:
			s.SyncDir(append(dirs, ".")[rnd.IntN(3)])
		case n == 8 && s.Exists(g):
			s.Exchange(f, g)
		case n == 8 || n == 9:
			s.Rename(f, g)
		case n == 10 && !s.Exists(g):
			s.Link(f, g)
		case n == 11:
			s.Close(f)
			s.Unlink(f)
		}
	}
	s.CloseAll()
}

// cut runs the script's checks at n instants, with the content of each sector whole or as it was.
func cut(t *testing.T, l *Log, s *Script, seed uint64, n int, block int64) error {
	t.Helper()
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	dir := TempDir(t)
	visited := 0
	err := l.EachCut(seed, n, func(at int, disk *Image) error {
		visited++
		to := filepath.Join(dir, fmt.Sprint(visited))
		if _, err := disk.WriteTo(to); err != nil {
			t.Fatal(err)
		}
		return Errors(s.Check(to, at, Guarantee{Block: block}))
	})
	if err == nil && visited != n {
		t.Errorf("%d of %d cuts were made", visited, n)
	}
	return err
}

// TestHonestFileSystem: a plain directory keeps its promises, sector by sector, on every disk that the model makes.
func TestHonestFileSystem(t *testing.T) {
	for seed := range uint64(6) {
		rec, fs := record(t)
		s := NewScript(fs, rec.Now)
		wander(s, rand.New(rand.NewPCG(seed, 0)), 150)
		if err := cut(t, logOf(t, rec), s, seed, 150, sectorSize); err != nil {
			t.Error(err)
		}
	}
}

// Each of these is broken in a way that only a power cut shows.
type (
	noSync         struct{ *stored }
	noDirSync      struct{ *stored }
	syncsEarly     struct{ *stored }
	savesUnsynced  struct{ *stored }
	renamesInSteps struct{ *stored }
)

type brokenFile struct {
	File
	write func(p []byte, off int64) (int, error)
	sync  func() error
}

func (f brokenFile) WriteAt(p []byte, off int64) (int, error) {
	if f.write != nil {
		return f.write(p, off)
	}
	return f.File.WriteAt(p, off)
}

func (f brokenFile) Sync() error {
	if f.sync != nil {
		return f.sync()
	}
	return f.File.Sync()
}

func (b noSync) Open(p string, create bool) (File, error) {
	f, err := b.stored.Open(p, create)
	return brokenFile{File: f, sync: func() error { return nil }}, err
}

func (noDirSync) SyncDir(string) error { return nil }

// syncsEarly syncs before it writes, not after.
func (b syncsEarly) Open(p string, create bool) (File, error) {
	f, err := b.stored.Open(p, create)
	return brokenFile{File: f, sync: func() error { return nil }, write: func(p []byte, off int64) (int, error) {
		if err := f.Sync(); err != nil {
			return 0, err
		}
		return f.WriteAt(p, off)
	}}, err
}

// savesUnsynced puts a new file in the place of the old one, and makes only the name of it durable.
func (b savesUnsynced) Open(p string, create bool) (File, error) {
	f, err := b.stored.Open(p, create)
	return brokenFile{
		File: f,
		write: func(data []byte, off int64) (int, error) {
			tmp, err := b.stored.Open(p+".tmp", true)
			if err != nil {
				return 0, err
			}
			if _, err := tmp.WriteAt(data, off); err != nil {
				return 0, err
			}
			if err := tmp.Close(); err != nil {
				return 0, err
			}
			return len(data), b.Rename(p+".tmp", p, 0)
		},
		sync: func() error { return b.SyncDir(filepath.Dir(p)) },
	}, err
}

// renamesInSteps has an instant at which neither name is there... or both.
func (b renamesInSteps) Rename(from, to string, _ uint) error {
	if err := b.Unlink(to); err != nil {
		return err
	}
	return b.stored.Rename(from, to, 0)
}

// save writes a file, replaces it, and asks for everything to be durable at each step.
func save(s *Script) {
	s.Mkdir("d")
	s.SyncDir(".")
	s.Create("d/old")
	s.SyncDir("d")
	s.Write("d/old", []byte(strings.Repeat("old ", 2000)), 0)
	s.Sync("d/old")
	s.Create("d/new")
	s.Write("d/new", []byte(strings.Repeat("new ", 3000)), 0)
	s.Sync("d/new")
	s.Rename("d/new", "d/old")
	s.SyncDir("d")
	s.CloseAll()
}

// TestKnownBugsAreFound: the model is cruel enough, and the check sharp enough, for mistakes that are really made.
func TestKnownBugsAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		breaks func(*stored) FileSystem
		block  int64
		rule   int
	}{
		"nothing is broken":                            {func(s *stored) FileSystem { return s }, sectorSize, 0},
		"fsync does nothing":                           {func(s *stored) FileSystem { return noSync{s} }, sectorSize, 1},
		"fsync of a directory does nothing":            {func(s *stored) FileSystem { return noDirSync{s} }, sectorSize, 1},
		"fsync comes before the write":                 {func(s *stored) FileSystem { return syncsEarly{s} }, sectorSize, 1},
		"a new file is renamed before it is durable":   {func(s *stored) FileSystem { return savesUnsynced{s} }, sectorSize, 1},
		"a file is removed before another replaces it": {func(s *stored) FileSystem { return renamesInSteps{s} }, sectorSize, 1},
		"blocks are larger than what the disk writes":  {func(s *stored) FileSystem { return s }, 4096, 2},
	} {
		t.Run(name, func(t *testing.T) {
			rec, fs := record(t)
			s := NewScript(test.breaks(fs), rec.Now)
			save(s)
			err := cut(t, logOf(t, rec), s, 1, 300, test.block)
			switch {
			case test.rule == 0 && err != nil:
				t.Error(err)
			case test.rule != 0 && err == nil:
				t.Error("not found")
			case test.rule != 0 && !strings.Contains(err.Error(), fmt.Sprintf("rule %d: ", test.rule)):
				t.Errorf("found as something else: %v", err)
			}
		})
	}
}
