package host

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"duet/cluster/doctor"
)

// Spaces measures the file systems of the node's directory, or where it will be, and of the images. The images of one
// file system are one Space, with all that they may still grow together; block devices cannot grow. The directory is
// one of its own, as it is judged by other bounds, also where both are on one file system. It has no context: the
// kernel holds up whoever asks for a file system that hangs.
func Spaces(dir string, images []string) []doctor.Space {
	var out []doctor.Space
	if free, _, ok := statfs(within(dir)); ok {
		out = append(out, doctor.Space{Dir: dir, For: doctor.ForMetadata, Free: free})
	}
	at := map[uint64]int{} // by file system, place in out
	add := func(path string, grow int64) {
		free, id, ok := statfs(within(path))
		if !ok {
			return
		}
		i, seen := at[id]
		if !seen {
			i = len(out)
			at[id] = i
			out = append(out, doctor.Space{Dir: path, For: doctor.ForImages, Free: free})
		}
		out[i].Grow += grow
	}
	add(filepath.Join(dir, "volumes"), 0) // where they are made
	for _, image := range images {
		var st unix.Stat_t
		if unix.Stat(image, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		add(filepath.Dir(image), max(0, st.Size-st.Blocks*512))
	}
	return out
}

// statfs is what an unprivileged process could still write to the file system of path, and what tells it from
// others. What is reserved for root does not count.
func statfs(path string) (free int64, id uint64, ok bool) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(path, &fs) != nil || unix.Stat(path, &st) != nil {
		return 0, 0, false
	}
	return int64(fs.Bavail) * fs.Bsize, st.Dev, true
}

// fileLimit is how many files this process may open. 0: not known.
func fileLimit() uint64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 0
	}
	return r.Cur
}
