// Package images has the image files of a node: it makes those of new modules, gives the room that another node asks
// for the second copies of its disks, undoes both, and renames what a released module leaves. It never takes a file for
// its own that it finds: only the copy that an earlier release left, which has a name of its own.
//
// What was made for another node is noted durably before that is answered: only such files are another node's to use or
// to undo.
//
// What is made or gets another name is durable when the call returns, the name too (package durable). It is chosen,
// noted, made, and noted as made: a daemon that dies in between leaves a note for each file of its own. Of a file that
// was only intended nobody knows whether it was made, or whose it is by now: an undo takes none that holds anything.
// The package has no goroutines; its calls wait for the disk, and Host for the hypervisor too.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"duet/appmodules"
	"duet/appmodules/protect"
	"duet/blockrepl/backing"
	"duet/blockrepl/durable"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Store keeps the notes durably: Save returns when the value survives power loss.
type Store interface {
	Load(key string, v any) (found bool, err error)
	Save(key string, v any) error
	Delete(key string) error
	Keys(prefix string) ([]string, error)
}

// Config says what a Room works with; all fields are needed but Allowed.
type Config struct {
	Self cluster.NodeID
	Dir  string // of the node
	// Allowed are the directories in which the admin of another node may name the place of
	// an image on this one; nil: where images lie by custom.
	Allowed []string
	Store   Store
	Modules func() []appmodules.Module // of this node
	// Taken says why a VM of that name cannot come here; nil: it can. Back: its module was here before.
	Taken func(ctx context.Context, vm string, back bool) (*vmmanager.Finding, error)
}

// Room makes and drops images. Any number of goroutines may use it.
type Room struct {
	cfg    Config
	making sync.Mutex // held while images for another node are made or undone
}

// New returns a Room.
func New(cfg Config) *Room { return &Room{cfg: cfg} }

// Hosting asks a node to make the images of a VM that it does not have.
type Hosting struct {
	ID     string          `json:"id"` // of the request, which may be repeated, and by which it is undone
	Module string          `json:"module"`
	VM     string          `json:"vm"`
	Places []protect.Place `json:"places"`
	// Fresh: no admin has said that what is at those places may be overwritten. The module was there before, and what
	// lies there may be the only copy of what that node wrote then.
	Fresh bool `json:"fresh,omitempty"`
}

// hosted is what a node notes durably of a hosting, before it makes the images and again before it answers: only what
// it has made for another node is that node's to use or to undo.
type hosted struct {
	Module string         `json:"module"`
	Images []protect.Made `json:"images"`
}

// imageDir is where the images of a module are made.
func (r *Room) imageDir(module string) string { return filepath.Join(r.imagesDir(), module) }

// imagesDir is where all images lie for which nobody has named a place.
func (r *Room) imagesDir() string { return filepath.Join(r.cfg.Dir, "volumes") }

// within: path is dir or below it; both are clean.
func within(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

const hostedPrefix = "hosted/"

// Host makes the images of a VM of another node. A repeated request gets the answer it had. ErrConflict: the name
// of the VM is taken, or a place is in use. ErrInvalid: a place is not one that this node gives away. It waits for
// other hostings even after ctx has ended.
func (r *Room) Host(ctx context.Context, h Hosting) ([]protect.Made, error) {
	r.making.Lock()
	defer r.making.Unlock()
	var before hosted
	// The answer may have been lost on its way; a second image would be in nobody's hands.
	found, err := r.cfg.Store.Load(hostedPrefix+h.ID, &before)
	if err != nil || found && before.made() {
		return before.Images, err
	}
	if found { // this node died over it
		if err := r.drop(h.ID, before); err != nil {
			return nil, err
		}
	}
	switch taken, err := r.taken(ctx, h); {
	case err != nil:
		return nil, err
	case taken != nil:
		return nil, fmt.Errorf("%w: %s", api.ErrConflict, taken.Whole())
	}
	chosen, err := r.chooseFor(h.Module, h.Places, h.Fresh)
	if err != nil {
		return nil, err
	}
	note := hosted{h.Module, chosen}
	if err := r.cfg.Store.Save(hostedPrefix+h.ID, note); err != nil {
		return nil, err
	}
	made, err := r.Make(h.Module, h.Places, chosen)
	if err == nil {
		err = r.cfg.Store.Save(hostedPrefix+h.ID, hosted{h.Module, made})
	}
	if err != nil {
		return nil, errors.Join(err, r.drop(h.ID, note)) // what stays is found by its note
	}
	return made, nil
}

// MayHost refuses what Host would refuse of the places, and changes nothing. The images that a module of that name has
// here are in nobody's way: it is cleared away before Host is asked.
func (r *Room) MayHost(module string, places []protect.Place) error {
	places = slices.DeleteFunc(slices.Clone(places), func(p protect.Place) bool {
		return strings.HasPrefix(r.volumeOn(p.Path), module+"/")
	})
	_, err := r.chooseFor(module, places, false)
	return err
}

// chooseFor is Choose for another node.
func (r *Room) chooseFor(module string, places []protect.Place, fresh bool) ([]protect.Made, error) {
	for _, p := range places {
		if err := r.mayHost(p.Path); err != nil {
			return nil, err
		}
	}
	if fresh {
		var err error
		if places, err = unused(places); err != nil {
			return nil, fmt.Errorf("%w on %s", err, r.self())
		}
	}
	return r.Choose(module, places)
}

// unused are the places without those where a file is: that stays as it is, and the image is made where this node
// chooses. A device has no other place; one that may hold something is refused.
func unused(places []protect.Place) ([]protect.Place, error) {
	places = slices.Clone(places)
	for i, p := range places {
		st, err := os.Stat(p.Path)
		switch {
		case p.Path == "" || errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case st.Mode().IsRegular():
			places[i].Path = ""
		default:
			if yes, err := zeroes(p.Path); err != nil {
				return nil, err
			} else if !yes {
				return nil, fmt.Errorf("%w: %s is not empty, and may be all that is left of what was written there: if "+
					"nobody needs that, `blkdiscard -z -l 1M %s`", api.ErrConflict, p.Path, p.Path)
			}
		}
	}
	return places, nil
}

// looked is how much of a device zeroes looks at: tables of partitions and heads of file systems are there.
const looked = 1 << 20

// zeroes reports whether a device begins with nothing.
func zeroes(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, looked))
	return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }), err
}

// drop undoes what a note says, then forgets the note: what could not be undone is still known by it.
func (r *Room) drop(id string, h hosted) error {
	if err := r.Drop(h.Images); err != nil {
		return err
	}
	return r.cfg.Store.Delete(hostedPrefix + id)
}

// made: all of it was made, and not only intended.
func (h hosted) made() bool {
	return !slices.ContainsFunc(h.Images, func(m protect.Made) bool { return m.Intended })
}

// imageDirs are where the admin of another node may put an image on this one by default:
// libvirt's own pool, where data lie by custom, and block devices.
func imageDirs() []string { return []string{"/var/lib/libvirt/images", "/srv", "/mnt", "/dev"} }

// mayHost refuses a place that another node has named and this one does not give away.
func (r *Room) mayHost(path string) error {
	if path == "" {
		return nil
	}
	// A link in an allowed directory leads anywhere. The directory has to be there: none is made outside of this
	// node's own.
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return r.noFolder(path, err)
	}
	allowed := r.cfg.Allowed
	if allowed == nil {
		allowed = imageDirs()
	}
	// Where this node makes images itself they may lie too.
	for _, dir := range append([]string{r.imagesDir()}, allowed...) {
		if dir, err := filepath.EvalSymlinks(dir); err == nil && within(dir, real) {
			// A file in /dev lies in memory, and everything else there is no disk.
			if strings.HasPrefix(real+"/", "/dev/") && !backing.IsBlock(path) {
				break
			}
			return nil
		}
	}
	return fmt.Errorf("%w: %s takes images of other nodes in %s only, not as %s: `duetd --images` there says where",
		api.ErrInvalid, r.self(), strings.Join(allowed, ", "), path)
}

// noFolder says that the directory of a place is not there, and why.
func (r *Room) noFolder(path string, why error) error {
	return fmt.Errorf("%w: image %s: %w: make its directory on %s first, or name another place", api.ErrInvalid, path,
		why, r.self())
}

// DropHosted undoes a hosting, after its end where it is under way: whoever undoes it may have given up waiting for it.
// One that is not known was undone before, or never done.
func (r *Room) DropHosted(id string) error {
	r.making.Lock()
	defer r.making.Unlock()
	var h hosted
	if found, err := r.cfg.Store.Load(hostedPrefix+id, &h); err != nil || !found {
		return err
	}
	return r.drop(id, h)
}

// DropListed is DropHosted for version 1, which lists the images: those that this node has
// noted are undone as it noted them.
func (r *Room) DropListed(all []protect.Made) error {
	notes, err := r.hostings()
	var errs []error
	for id, h := range notes {
		if slices.ContainsFunc(all, func(m protect.Made) bool { return h.has(m.Path) }) {
			errs = append(errs, r.DropHosted(id))
		}
	}
	return errors.Join(append(errs, err)...)
}

// has reports whether path is among what was made.
func (h hosted) has(path string) bool {
	return slices.ContainsFunc(h.Images, func(m protect.Made) bool { return m.Path == path })
}

// hostings are all notes, by request.
func (r *Room) hostings() (map[string]hosted, error) {
	keys, err := r.cfg.Store.Keys(hostedPrefix)
	if err != nil {
		return nil, err
	}
	out := make(map[string]hosted, len(keys))
	for _, key := range keys {
		var h hosted
		if _, err := r.cfg.Store.Load(key, &h); err != nil {
			return nil, err
		}
		out[strings.TrimPrefix(key, hostedPrefix)] = h
	}
	return out, nil
}

// Choose says what Make would make for each place, and changes nothing. A place that an admin has named and that will
// not do is an error. What it returns is Intended: the caller keeps it durably before Make, for Drop.
func (r *Room) Choose(module string, places []protect.Place) (out []protect.Made, err error) {
	for _, p := range places {
		m, err := r.choose(module, p)
		if err == nil && slices.ContainsFunc(out, func(o protect.Made) bool {
			return o.Path == m.Path || sameFile(o.Path, m.Path)
		}) {
			err = fmt.Errorf("%w: %s is that of another disk already: name another place", api.ErrInvalid, m.Path)
		}
		if err != nil {
			return nil, r.about(p, err)
		}
		m.Intended = true
		out = append(out, m)
	}
	return out, nil
}

// Make makes what was chosen for the places, or none, and returns it as made. A name that something has got since it
// was chosen is fs.ErrExist, and stays what it is. After an error Drop of what was chosen takes back what Make could
// not.
func (r *Room) Make(module string, places []protect.Place, chosen []protect.Made) ([]protect.Made, error) {
	var out []protect.Made
	for i, p := range places {
		m := chosen[i]
		if err := r.makeImage(module, m, p.Size); err != nil {
			return nil, errors.Join(r.about(p, err), r.Drop(out))
		}
		m.Intended = false
		out = append(out, m)
	}
	return out, nil
}

// about says of which image an error is.
func (r *Room) about(p protect.Place, err error) error {
	return fmt.Errorf("image of volume %s on %s: %w", p.Target, r.self(), err)
}

// choose takes a name that nothing has. The copy that an earlier release left is used again where it has the size: it
// saves room, and a resync overwrites it.
func (r *Room) choose(module string, p protect.Place) (protect.Made, error) {
	if p.Path != "" {
		return r.chosenImage(p)
	}
	for i := 1; ; i++ {
		path := filepath.Join(r.imageDir(module), p.Target+".raw")
		if i > 1 {
			path = filepath.Join(r.imageDir(module), fmt.Sprintf("%s-%d.raw", p.Target, i))
		}
		if exists(path) {
			continue
		}
		if st, err := os.Lstat(path + protect.Retired); err == nil {
			if !st.Mode().IsRegular() || st.Size() != p.Size {
				continue
			}
			return protect.Made{Path: path, Was: path + protect.Retired}, nil
		}
		return protect.Made{Path: path}, nil
	}
}

// chosenImage is the file or block device that the admin has named, whose content will
// be overwritten, or a file that is not there yet.
func (r *Room) chosenImage(p protect.Place) (protect.Made, error) {
	if volume := r.volumeOn(p.Path); volume != "" {
		return protect.Made{}, fmt.Errorf("%w: %s is the image of %s", api.ErrConflict, p.Path, volume)
	}
	if !exists(p.Path) {
		if _, err := os.Stat(filepath.Dir(p.Path)); err != nil {
			return protect.Made{}, r.noFolder(p.Path, err)
		}
		if within("/dev", p.Path) {
			return protect.Made{}, fmt.Errorf("%w: there is no device %s, and a file there would lie in memory: name a block "+
				"device, or a file elsewhere", api.ErrInvalid, p.Path)
		}
		return protect.Made{Path: p.Path}, nil
	}
	f, err := backing.OpenFile(p.Path, p.Size) // refuses what is in use, too
	if errors.Is(err, backing.ErrSize) {
		return protect.Made{}, fmt.Errorf("%w: %w: give it that size, or name another place", api.ErrConflict, err)
	}
	if errors.Is(err, backing.ErrKind) {
		return protect.Made{}, fmt.Errorf("%w: %w: name one, or a file that is not there yet", api.ErrInvalid, err)
	}
	if errors.Is(err, backing.ErrInUse) {
		return protect.Made{}, fmt.Errorf("%w: %w: name another place", api.ErrConflict, err)
	}
	if err != nil {
		return protect.Made{}, err
	}
	return protect.Made{Path: p.Path, Was: p.Path}, f.Close()
}

// makeImage makes one. The directories can be passed through by QEMU's user; a new file is its maker's until libvirt or
// Grant gives it away.
func (r *Room) makeImage(module string, m protect.Made, size int64) error {
	if r.Made(module, m.Path) {
		for _, d := range []string{r.cfg.Dir, r.imagesDir(), r.imageDir(module)} {
			if err := backing.Passage(d); err != nil {
				return fmt.Errorf("make directory of image: %w", err)
			}
		}
	}
	switch m.Was {
	case "":
		return createImage(m.Path, size)
	case m.Path:
		return nil
	}
	if exists(m.Path) {
		return fmt.Errorf("%s: %w", m.Path, fs.ErrExist)
	}
	return durable.Rename(m.Was, m.Path)
}

// createImage makes a file of zeroes that takes no room yet.
func createImage(path string, size int64) error {
	f, err := backing.CreateFile(path, size)
	if err != nil {
		return err
	}
	return f.Close()
}

// volumeOn names the volume of this node whose image path is; empty if it is nobody's. Files are compared by device
// and inode, so one that is missing is nobody's.
func (r *Room) volumeOn(path string) string {
	for _, m := range r.cfg.Modules() {
		for _, v := range m.Volumes() {
			if sameFile(v.Paths[r.self()], path) {
				return m.Name + "/" + v.Target
			}
		}
	}
	return ""
}

// exists counts a link to nowhere too: something has that name.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// sameFile sees through links and other names.
func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	two, err := os.Stat(b)
	return err == nil && os.SameFile(one, two)
}

// Drop undoes Make. What is gone already is no error; what a module has by
// now stays: the caller may have missed the answer that says so. It may be repeated.
func (r *Room) Drop(all []protect.Made) error {
	var errs []error
	for _, m := range all {
		if r.volumeOn(m.Path) != "" {
			continue
		}
		undo := r.unmake
		if m.Intended {
			undo = withdraw
		}
		if err := undo(m); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("undo image: %w", err))
		}
	}
	return errors.Join(errs...)
}

// unmake undoes an image that was made.
func (r *Room) unmake(m protect.Made) error {
	now := m.Path
	if !exists(now) && within(r.imagesDir(), now) {
		now += protect.Retired // the module had begun and was removed; of another place that is somebody else's file
	}
	switch m.Was {
	case "":
		return durable.Remove(now)
	case m.Path, now: // the admin's own, or what it was already
		return nil
	}
	return durable.Rename(now, m.Was)
}

// withdraw undoes an image that was perhaps not made: only what can be nobody else's file, or holds nothing that
// somebody could miss, is taken.
func withdraw(m protect.Made) error {
	switch {
	case m.Was == "":
		if yes, err := blank(m.Path); err != nil || !yes {
			return err
		}
		return durable.Remove(m.Path)
	case m.Was == m.Path, exists(m.Was): // the latter was not renamed, or has its name back
		return nil
	}
	return durable.Rename(m.Path, m.Was)
}

// blank: path is as createImage leaves it, whole or not: a file of its maker alone in which nothing was ever written.
// One that is in use is not, nor is any where the system does not tell.
func blank(path string) (bool, error) {
	st, err := os.Lstat(path)
	switch {
	case err != nil || !st.Mode().IsRegular() || st.Mode().Perm() != 0o600:
		return false, err
	case st.Size() == 0:
		return true, nil
	}
	f, err := backing.OpenFile(path, 0)
	switch {
	case errors.Is(err, backing.ErrInUse), errors.Is(err, backing.ErrSize):
		return false, nil
	case err != nil:
		return false, err
	}
	defer f.Close() // nothing is written
	data, _, err := f.Data(0)
	return data == f.Size(), err
}

// Retire gives the images of a module that this node has made another name, so that
// nobody takes them for a VM's newest data, and a later protect can use them again. It may be repeated. An image
// where an admin wanted it keeps its name.
func (r *Room) Retire(m appmodules.Module) error {
	var errs []error
	for _, v := range m.Volumes() {
		path := v.Paths[r.self()]
		if filepath.Dir(path) != r.imageDir(m.Name) || strings.HasSuffix(path, protect.Retired) || !exists(path) {
			continue
		}
		errs = append(errs, durable.Rename(path, path+protect.Retired))
	}
	return errors.Join(errs...)
}

// Disk is the disk that a VM has when it is on the image of a volume.
func (r *Room) Disk(v appmodules.Volume) vmmanager.Disk {
	path := v.Paths[r.self()]
	return vmmanager.Disk{Target: v.Target, Path: path, Format: "raw", Block: backing.IsBlock(path), Size: v.Size}
}

// Made tells whether path is where this node makes the images of a module.
func (r *Room) Made(module, path string) bool { return filepath.Dir(path) == r.imageDir(module) }

// MadeFor tells whether this node has made the image of a volume for a module of another node.
func (r *Room) MadeFor(m appmodules.Module, v appmodules.Volume) (bool, error) {
	notes, err := r.hostings()
	for _, h := range notes {
		if h.Module == m.Name && h.made() && h.has(v.Paths[r.self()]) {
			return true, err
		}
	}
	return false, err
}

// self is this node, in the words of configurations.
func (r *Room) self() string { return string(r.cfg.Self) }

// taken says why what a hosting is for cannot come here; nil: it can. Only a VM has something besides its images.
func (r *Room) taken(ctx context.Context, h Hosting) (*vmmanager.Finding, error) {
	if h.VM == "" {
		return nil, nil
	}
	return r.cfg.Taken(ctx, h.VM, h.Fresh)
}

// requestID is what the ID of a request is like: it is part of a key.
var requestID = regexp.MustCompile(`^[a-zA-Z0-9]{1,64}$`)

// Check refuses what makes no sense.
func (h Hosting) Check() error {
	if !requestID.MatchString(h.ID) {
		return fmt.Errorf("request %q for module %q: that is no name", h.ID, h.Module)
	}
	if err := protect.CheckPlaces(h.Module, h.Places); err != nil {
		return err
	}
	if h.VM == "" { // what is no VM has none
		return nil
	}
	return vmmanager.CheckName(h.VM)
}
