package badgerlog

// tidyLoop retakes the ballast and compacts. It stands in for badger's
// compactors, which would not look at the free space.
func (s *Store) tidyLoop() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.nudge:
			s.room.retake(s.room.minFree) // a commit may be under way
			s.compact()
		}
	}
}

// compact merges the fresh tables into the old ones once they are worth it, so
// that the cost per written byte stays constant. A failure is retried with the
// next nudge: nothing depends on it but the size.
func (s *Store) compact() {
	var fresh, old int64
	for _, l := range s.db.Levels() {
		if l.Level == 0 {
			fresh = l.Size
		} else {
			old += l.Size
		}
	}
	if fresh == 0 || fresh < old/2 || s.room.check(s.room.minFree+fresh+old) != nil {
		return
	}
	_ = s.db.Flatten(1) // badger logs the reason of a failure itself
}
