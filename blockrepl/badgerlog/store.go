package badgerlog

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// DefaultMinFree is the free space, in bytes, below which commits are refused.
const DefaultMinFree = 64 << 20

// ErrClosed is returned for everything that reaches a Store after Close.
var ErrClosed = errors.New("store closed")

// ErrInUse is returned by Open when another process, or another Store, has the directory.
var ErrInUse = errors.New("directory is in use")

// Config says where a Store lives.
type Config struct {
	Dir     string       // made if it does not exist; holds nothing else
	Logger  *slog.Logger // badger's own warnings; nil discards them
	MinFree int64        // bytes; zero means DefaultMinFree
}

// Store is one node's durable memory. All methods may be called by several
// goroutines, but those that wait for a commit (Put) not from a done callback: that runs on
// the committer, which would wait for itself. Nor may Close be called there.
type Store struct {
	db   *badger.DB
	room *room
	dir  *dirSync // of the committer, once it runs
	max  limits   // somewhat less than badger's own, which counts what it adds

	mu     sync.Mutex
	queue  []op // in order of arrival
	closed bool
	wake   chan struct{} // holds one token while queue may be non-empty
	nudge  chan struct{} // holds one token while there may be tidying to do

	files sync.RWMutex // held for reading by reads, for writing by closeDB
	down  bool         // the files may be gone

	stop chan struct{} // closed by Close, after closed is set
	wg   sync.WaitGroup
	once sync.Once
	err  error // of Close
}

// Open opens the store in cfg.Dir and makes it if there is none. It fails with
// ErrFull if there is no room and with ErrInUse if the directory is taken. It reads what a crash left, so it takes as
// long as the disk does.
func Open(cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MinFree <= 0 {
		cfg.MinFree = DefaultMinFree
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	room := &room{dir: cfg.Dir, minFree: cfg.MinFree, free: freeBytes}
	db, err := openDB(cfg, room)
	if err != nil {
		return nil, err
	}
	s := &Store{
		db: db, room: room, dir: &dirSync{dir: cfg.Dir},
		max:  limits{count: int(db.MaxBatchCount()) - 8, bytes: int(db.MaxBatchSize()) - 1024},
		wake: make(chan struct{}, 1), nudge: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if err := s.dir.sync(); err != nil {
		return nil, errors.Join(fmt.Errorf("sync %s: %w", cfg.Dir, err), db.Close())
	}
	s.room.retake(0)
	s.wg.Go(s.commitLoop)
	s.wg.Go(s.tidyLoop)
	return s, nil
}

// openDB opens badger with the ballast dropped. The directory is locked by
// badger only after that, so the ballast of a running Store is spared by asking
// for the lock first.
func openDB(cfg Config, room *room) (*badger.DB, error) {
	if err := probeLock(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open store: %s: %w (is another duetd running?)", cfg.Dir, ErrInUse)
	}
	if err := room.drop(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := room.check(openRoom); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db, err := badger.Open(dbOptions(cfg.Dir, cfg.Logger))
	if err == nil {
		return db, nil
	}
	if strings.Contains(err.Error(), "directory lock") { // badger has no sentinel for it
		return nil, fmt.Errorf("open store: %s: %w (is another duetd running?)", cfg.Dir, ErrInUse)
	}
	return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
}

// Close ends what was queued, stops all goroutines and closes the files. It may
// be called more than once. On a full disk the files are left as after a crash,
// which loses nothing, and the error says so; badger and its lock on the directory then stay until the process ends.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.stop)
		s.wg.Wait()
		s.err = s.closeDB()
	})
	return s.err
}

// closeDB waits for reads under way, and lets no other begin: badger unmaps what they would read.
func (s *Store) closeDB() error {
	s.files.Lock()
	defer s.files.Unlock()
	s.down = true
	// Closing writes the memory table out, which needs room: that is the ballast's job.
	err := s.room.drop()
	if err == nil {
		err = s.room.check(openRoom)
	}
	if err != nil {
		return fmt.Errorf("close store: left as it is, nothing is lost: %w", err)
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	s.room.retake(0)
	return nil
}
