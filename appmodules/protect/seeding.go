package protect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// seeding serves a volume alone, while a running VM's disk is copied into it. Its log is the one that the module's
// engine finds afterwards.
type seeding struct {
	image  *backing.File
	prim   *blockrepl.Primary
	front  blockrepl.Frontend
	ended  chan struct{}
	failed atomic.Pointer[error] // why its device failed
	once   sync.Once
	err    error // of the close
}

// close ends it, in this order: the volume, so that no request is in flight, its front end, the image. It may be
// called by several goroutines, each of which waits for the end; it lasts as long as a call of the device that is
// stuck. A VM that is on it waits and connects again.
func (s *seeding) close() error {
	s.once.Do(func() {
		s.prim.Close()
		err := s.front.Close()
		<-s.ended
		s.err = errors.Join(err, s.image.Close())
	})
	return s.err
}

// failure is why the device failed; nil if it did not.
func (s *seeding) failure() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// seed serves one volume, writable here alone, on the socket that its module will use. If its device fails it is
// closed: the copy into it ends with an error instead of waiting. Epoch 1 is that of the record which the module
// begins with (engine.Create). There is no local budget: a disk that hangs is waited for. After an error nothing is
// open.
func (w *Works) seed(ctx context.Context, m appmodules.Module, v appmodules.Volume) (*seeding, error) {
	vols, log := w.cfg.Volumes, w.cfg.Logger
	if err := vols.Seed(ctx, v); err != nil {
		return nil, err
	}
	img, err := backing.OpenFile(v.Paths[string(w.self())], v.Size)
	if err != nil {
		return nil, err
	}
	s := &seeding{image: img, ended: make(chan struct{})}
	report := func(ev blockrepl.Event) {
		if f, ok := ev.(blockrepl.DeviceFailed); ok {
			err := fmt.Errorf("volume %s: %w", v.Target, f.Err)
			s.failed.CompareAndSwap(nil, &err)
			w.cfg.Spawn(func(context.Context) { _ = s.close() }) // whoever uses it is told why
		}
	}
	s.prim, err = blockrepl.NewPrimary(blockrepl.PrimaryConfig{Volume: m.Name + "/" + v.Target, Node: string(w.self()),
		Identity: v.ID,
		Device:   img, Log: vols.Log(v), Logger: log, Events: report})
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	if s.front, err = vols.Frontend(m, v); err != nil {
		return nil, errors.Join(err, img.Close())
	}
	s.prim.Start()
	go func() {
		defer close(s.ended)
		if err := s.front.Serve(s.prim); err != nil {
			log.Error("frontend ended", "volume", v.Target, "err", err)
		}
	}()
	if err := s.prim.GoAlone(1); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}
