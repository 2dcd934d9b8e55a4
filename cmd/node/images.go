package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"duet/appmodules"
	"duet/appmodules/protect"
	"duet/blockrepl/backing"
	"duet/blockrepl/durable"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// The images that `duet vm protect` makes. It never takes a file for its own that it
// finds: only the copy that an earlier release left, which has a name of its own.

// hosting asks a node to make the images of a VM that it does not have.
type hosting struct {
	ID     string          `json:"id"` // of the request, which may be repeated, and by which it is undone
	Module string          `json:"module"`
	VM     string          `json:"vm"`
	Places []protect.Place `json:"places"`
}

// hosted is what a node notes durably of a hosting, before it answers: only what it has
// made for another node is that node's to use or to undo.
type hosted struct {
	Module string         `json:"module"`
	Images []protect.Made `json:"images"`
}

// imageDir is where the images of a module are made.
func (n *Node) imageDir(module string) string { return filepath.Join(n.cfg.Dir, "volumes", module) }

const hostedPrefix = "hosted/"

// host makes the images of a VM of another node. A repeated request gets the answer it had.
func (n *Node) host(ctx context.Context, h hosting) ([]protect.Made, error) {
	n.hosting.Lock()
	defer n.hosting.Unlock()
	var before hosted
	if found, err := n.values().Load(hostedPrefix+h.ID, &before); err != nil || found {
		return before.Images, err
	}
	switch taken, err := n.nameTaken(ctx, h.VM); {
	case err != nil:
		return nil, err
	case taken != nil:
		return nil, fmt.Errorf("%w: %s", api.ErrConflict, taken.Whole())
	}
	for _, p := range h.Places {
		if err := n.mayHost(p.Path); err != nil {
			return nil, err
		}
	}
	images, err := n.makeImages(h.Module, h.Places)
	if err != nil {
		return nil, err
	}
	if err := n.values().Save(hostedPrefix+h.ID, hosted{h.Module, images}); err != nil {
		return nil, errors.Join(err, n.dropImages(images))
	}
	return images, nil
}

// imageDirs are where the admin of another node may put an image on this one by default:
// libvirt's own pool, where data lie by custom, and block devices.
func imageDirs() []string { return []string{"/var/lib/libvirt/images", "/srv", "/mnt", "/dev"} }

// mayHost refuses a place that another node has named and this one does not give away.
func (n *Node) mayHost(path string) error {
	if path == "" {
		return nil
	}
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("image %s: %w", path, err)
	}
	allowed := n.cfg.ImageDirs
	if allowed == nil {
		allowed = imageDirs()
	}
	// Where this node makes images itself they may lie too.
	for _, dir := range append([]string{filepath.Join(n.cfg.Dir, "volumes")}, allowed...) {
		if dir, err := filepath.EvalSymlinks(dir); err == nil && (real == dir || strings.HasPrefix(real, dir+"/")) {
			if strings.HasPrefix(real+"/", "/dev/") && !isBlock(path) {
				break
			}
			return nil
		}
	}
	return fmt.Errorf("%w: %s takes images of other nodes in %s only, not as %s: `duetd --images` there says where", api.ErrInvalid,
		n.self(), strings.Join(allowed, ", "), path)
}

// dropHosted undoes a hosting, after its end where it is under way: whoever undoes it may have given up waiting for it.
// One that is not known was undone before, or never done.
func (n *Node) dropHosted(id string) error {
	n.hosting.Lock()
	defer n.hosting.Unlock()
	var h hosted
	if found, err := n.values().Load(hostedPrefix+id, &h); err != nil || !found {
		return err
	}
	if err := n.dropImages(h.Images); err != nil {
		return err
	}
	return n.values().Delete(hostedPrefix + id)
}

// dropListed is dropHosted for version 1, which lists the images: those that this node has
// noted are undone as it noted them.
func (n *Node) dropListed(all []protect.Made) error {
	notes, err := n.hostings()
	var errs []error
	for id, h := range notes {
		if slices.ContainsFunc(all, func(m protect.Made) bool { return h.has(m.Path) }) {
			errs = append(errs, n.dropHosted(id))
		}
	}
	return errors.Join(append(errs, err)...)
}

// has reports whether path is among what was made.
func (h hosted) has(path string) bool {
	return slices.ContainsFunc(h.Images, func(m protect.Made) bool { return m.Path == path })
}

// hostings are all notes, by request.
func (n *Node) hostings() (map[string]hosted, error) {
	keys, err := n.values().Keys(hostedPrefix)
	if err != nil {
		return nil, err
	}
	out := make(map[string]hosted, len(keys))
	for _, key := range keys {
		var h hosted
		if _, err := n.values().Load(key, &h); err != nil {
			return nil, err
		}
		out[strings.TrimPrefix(key, hostedPrefix)] = h
	}
	return out, nil
}

// undoHosting has another node undo one.
func (n *Node) undoHosting(ctx context.Context, node cluster.NodeID, id string, images []protect.Made) error {
	err := n.rpcTo(ctx, node, "hostings/"+id+"/drop", nil, nil)
	if errors.Is(err, cluster.ErrOlder) {
		err = n.rpcTo(ctx, node, "images/drop", images, nil)
	}
	return err
}

// makeImages makes an image for each place, or none.
func (n *Node) makeImages(module string, places []protect.Place) (out []protect.Made, err error) {
	for _, p := range places {
		m, err := n.makeImage(module, p)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("image of volume %s on %s: %w", p.Target, n.self(), err), n.dropImages(out))
		}
		out = append(out, m)
	}
	return out, nil
}

func (n *Node) makeImage(module string, p protect.Place) (protect.Made, error) {
	if p.Path != "" {
		return n.chosenImage(p)
	}
	dir := n.imageDir(module)
	for _, d := range []string{n.cfg.Dir, filepath.Dir(dir), dir} {
		if err := passage(d); err != nil {
			return protect.Made{}, fmt.Errorf("make directory of image: %w", err)
		}
	}
	for i := 1; ; i++ {
		path := filepath.Join(dir, p.Target+".raw")
		if i > 1 {
			path = filepath.Join(dir, fmt.Sprintf("%s-%d.raw", p.Target, i))
		}
		if exists(path) {
			continue
		}
		if st, err := os.Lstat(path + protect.Retired); err == nil {
			if !st.Mode().IsRegular() || st.Size() != p.Size {
				continue
			}
			return protect.Made{Path: path, Was: path + protect.Retired}, durable.Rename(path+protect.Retired, path)
		}
		return protect.Made{Path: path}, createImage(path, p.Size)
	}
}

func createImage(path string, size int64) error {
	f, err := backing.CreateFile(path, size)
	if err != nil {
		return err
	}
	return f.Close()
}

// chosenImage takes the file or block device that the admin has named, whose content will
// be overwritten, or makes the file.
func (n *Node) chosenImage(p protect.Place) (protect.Made, error) {
	if volume := n.volumeOn(p.Path); volume != "" {
		return protect.Made{}, fmt.Errorf("%w: %s is the image of %s", api.ErrConflict, p.Path, volume)
	}
	if !exists(p.Path) {
		return protect.Made{Path: p.Path}, createImage(p.Path, p.Size)
	}
	f, err := backing.OpenFile(p.Path, p.Size) // refuses what is in use, too
	if errors.Is(err, backing.ErrSize) {
		return protect.Made{}, fmt.Errorf("%w: %w: give it that size, or name another place", api.ErrConflict, err)
	}
	if err != nil {
		return protect.Made{}, err
	}
	return protect.Made{Path: p.Path, Was: p.Path}, f.Close()
}

// volumeOn names the volume of this node whose image path is; empty if it is nobody's.
func (n *Node) volumeOn(path string) string {
	for _, m := range n.all() {
		for _, v := range m.cfg.Volumes() {
			if sameFile(v.Paths[string(n.self())], path) {
				return m.cfg.Name + "/" + v.Target
			}
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	two, err := os.Stat(b)
	return err == nil && os.SameFile(one, two)
}

// dropImages undoes makeImages. What is gone already is no error; what a module has by
// now stays: the caller may have missed the answer that says so.
func (n *Node) dropImages(all []protect.Made) error {
	var errs []error
	for _, m := range all {
		now := m.Path
		if n.volumeOn(now) != "" {
			continue
		}
		if !exists(now) {
			now += protect.Retired // the module had begun and was removed
		}
		var err error
		switch m.Was {
		case "":
			err = os.Remove(now)
		case m.Path, now: // the admin's own, or what it was already
		default:
			err = durable.Rename(now, m.Was)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("undo image: %w", err))
		}
	}
	return errors.Join(errs...)
}

// retireImages gives the images of a module that this node has made another name, so that
// nobody takes them for a VM's newest data, and a later protect can use them again.
func (n *Node) retireImages(m appmodules.Module) error {
	var errs []error
	for _, v := range m.Volumes() {
		path := v.Paths[string(n.self())]
		if filepath.Dir(path) != n.imageDir(m.Name) || strings.HasSuffix(path, protect.Retired) || !exists(path) {
			continue
		}
		errs = append(errs, durable.Rename(path, path+protect.Retired))
	}
	return errors.Join(errs...)
}

// grown adds to an error of opening an image the way for one that was made larger: a volume
// has one size on both nodes, which is agreed when it is protected.
func (n *Node) grown(v appmodules.Volume, err error) error {
	m := n.moduleOfVolume(v.ID)
	if !errors.Is(err, backing.ErrSize) || m == nil {
		return err
	}
	path := v.Paths[string(n.self())]
	if size, sizeErr := sizeOf(path); sizeErr != nil || size < v.Size {
		return fmt.Errorf("%w: the end of %s is gone: what is on the other node is whole", err, path)
	}
	return fmt.Errorf("%w: a protected disk keeps its size. To grow it: `duet vm release %s`, give its image on that node the new size, "+
		"`duet vm protect %s`; to go on as before, give %s its %d bytes again", err, m.cfg.Name, m.cfg.Subject(), path, v.Size)
}

// imageOf is the disk that a VM has when it is on the image of a volume.
func (n *Node) imageOf(v appmodules.Volume) vmmanager.Disk {
	path := v.Paths[string(n.self())]
	return vmmanager.Disk{Target: v.Target, Path: path, Format: "raw", Block: isBlock(path), Size: v.Size}
}
