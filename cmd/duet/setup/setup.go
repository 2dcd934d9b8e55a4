// Package setup makes a node part of a cluster: the work of "duet cluster init", "join", "leave" and "rejoin", on
// the node's own files and while its daemon does not run. It does not look whether that runs; the caller has to.
//
// A node's directory holds cluster.json (a cluster.Config) and the folder pki (its identity). The folder gets its
// name last, so that a node is a member when it has both, and what a crash leaves in between is none yet: the next
// init or join begins anew and overwrites it. Leaving goes the other way round: the identity goes first, and
// cluster.json last, so that what a crash leaves of it is left by the next leave; until then init and join refuse,
// since the store of an earlier membership does not count in the next. The daemon makes everything else in the
// directory (store, journals, images, its token).
//
//	setup.go  all of it
//	addr.go   addresses as they are typed
package setup

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"duet/blockrepl/durable"
	"duet/cluster"
	"duet/cluster/membership"
	"duet/cluster/pki"
)

// DefaultDir is where a node keeps its state, unless --dir says otherwise to duet and to duetd.
const DefaultDir = "/var/lib/duet"

// The names in a node's directory.
const (
	ConfigFile = membership.File
	PKIFolder  = pki.Folder
	CAFile     = PKIFolder + "/" + pki.CACert // the authority's certificate, the same on all nodes
	TokenFile  = "console.token"              // made by the daemon
	storeFile  = "db"                         // folder, made by the daemon
)

const (
	keySize      = 32    // bytes of a gossip key
	maxPort      = 65533 // Port+2 is used too
	minDetection = 200 * time.Millisecond
	maxDetection = 5 * time.Minute
)

// InitRequest describes a new cluster and this node, its first. All fields are needed but Ping.
type InitRequest struct {
	Dir       string
	Cluster   string // for people and in the authority's certificate; it cannot be changed later
	Node      cluster.NodeID
	Addrs     []Addr
	Port      int           // TCP between nodes; Port+1 and Port+2 are used too
	Detection time.Duration // of all nodes: silence after which one is taken for dead
	Ping      []string      // IPs that arbitration "available" asks; empty: the gateway
}

// JoinRequest describes this node and the cluster it wants to join. Rejoin takes Node and Addrs from what the node
// was.
type JoinRequest struct {
	Dir   string
	At    string // address of a node, with or without port
	Token string // of the node at At, and of no other
	Node  cluster.NodeID
	Addrs []Addr
}

// OnDisk does all of it on the disk of this computer. Two at a time on one directory are not kept apart.
type OnDisk struct {
	// Dial connects to the join service of the node at addr (IP:port).
	Dial func(ctx context.Context, addr string, conf *tls.Config) (net.Conn, error)
}

// Init makes a cluster of one node, durably, and connects to nobody. It fails with pki.ErrExists on a node that is
// a member already. The configuration that it returns holds the key of the heartbeats, and the directory the
// cluster's authority: who can read either is as good as a member.
func (OnDisk) Init(_ context.Context, r InitRequest) (cluster.Config, error) {
	conf, err := r.config()
	if err != nil {
		return cluster.Config{}, fmt.Errorf("make cluster: %w", err)
	}
	err = settle(r.Dir, func(folder string) (cluster.Config, error) {
		id, err := pki.Init(folder, r.Cluster, r.Node)
		if err != nil {
			return conf, err
		}
		conf.Members[0].Key = membership.KeyOf(id.Certificate().Leaf)
		return conf, nil
	})
	if err != nil {
		return cluster.Config{}, fmt.Errorf("make cluster: %w", err)
	}
	return conf, nil
}

// Join makes this node a member of the cluster at r.At: when it returns nil, both that node and this one have it
// durably. It fails with pki.ErrExists on a node that is a member already, and before anything is sent. After a
// failure of this node's disk the cluster has a member of its name that never came: its token is used up and its
// name taken, so "duet cluster remove" there comes before another try.
func (d OnDisk) Join(ctx context.Context, r JoinRequest) (cluster.Config, error) {
	token, err := pki.ParseToken(r.Token)
	if err != nil {
		return cluster.Config{}, err
	}
	at, err := withPort(r.At)
	if err != nil {
		return cluster.Config{}, err
	}
	var conf cluster.Config
	err = settle(r.Dir, func(folder string) (cluster.Config, error) {
		var err error
		conf, err = pki.Join(ctx, pki.JoinConfig{
			Dir: folder, Token: token, Node: r.Node, Addrs: byNetwork(r.Addrs),
			Dial: func(ctx context.Context, t *tls.Config) (net.Conn, error) { return d.Dial(ctx, at, t) },
		})
		return conf, err
	})
	if err != nil {
		return cluster.Config{}, fmt.Errorf("join the cluster at %s: %w", at, err)
	}
	return conf, nil
}

// Leave ends the membership of this node: everything in its directory goes into a folder of it, whose path is
// returned, so that the node can join a cluster anew and nothing is thrown away. The daemon must not run. Nobody is
// told. It is durable when it returns; if it fails what was moved comes back, as far as it can. now only names the
// folder.
func (OnDisk) Leave(dir string, now time.Time) (string, error) { return putAside(dir, now) }

// putAside is Leave, but for what stays where it is.
func putAside(dir string, now time.Time, stays ...string) (string, error) {
	if _, err := membership.Load(dir); err != nil && !(errors.Is(err, membership.ErrNoMember) && remains(dir)) {
		return "", fmt.Errorf("leave cluster: %w", err)
	}
	aside, err := newAside(dir, now)
	if err != nil {
		return "", fmt.Errorf("leave cluster: %w", err)
	}
	if err := leave(dir, aside, stays); err != nil {
		return "", errors.Join(fmt.Errorf("leave cluster: %w", err), comeBack(aside, dir))
	}
	return aside, nil
}

// remains reports that dir has the store of a membership that has ended otherwise: a leave was cut off.
func remains(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, storeFile))
	return err == nil
}

// newAside makes the folder of one Leave, which is nobody else's: what is in that of an earlier one stays there.
func newAside(dir string, now time.Time) (string, error) {
	first := filepath.Join(dir, leftPrefix+now.Format("20060102-150405"))
	aside := first
	for i := 2; ; i++ {
		err := os.Mkdir(aside, 0o700)
		if !errors.Is(err, fs.ErrExist) {
			return aside, err
		}
		aside = fmt.Sprintf("%s-%d", first, i)
	}
}

// inOrder sorts entries by their place: the identity first, the configuration last, what has to go between.
func inOrder(entries []fs.DirEntry) {
	place := func(e fs.DirEntry) int {
		switch e.Name() {
		case PKIFolder:
			return -1
		case ConfigFile:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int { return place(a) - place(b) })
}

// leftPrefix begins the names of the folders that Leave makes.
const leftPrefix = "left-"

// leave moves what dir holds to aside. The identity goes first, durably: without it the node is no member, also after a
// crash. The configuration goes last: as long as something is left this is a directory that is to be left. What earlier
// ones have put aside stays where it is. What is mounted there, as a disk for the images, stays: it cannot be moved,
// and images that a node finds are in nobody's way.
func leave(dir, aside string, stays []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	inOrder(entries)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), leftPrefix) || slices.Contains(stays, e.Name()) {
			continue
		}
		err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(aside, e.Name()))
		if err != nil && !(e.IsDir() && e.Name() != storeFile && errors.Is(err, syscall.EBUSY)) {
			return err
		}
		if e.Name() == PKIFolder {
			if err := errors.Join(durable.SyncDir(aside), durable.SyncDir(dir)); err != nil {
				return err
			}
		}
	}
	return errors.Join(durable.SyncDir(aside), durable.SyncDir(dir))
}

// Rejoin is Leave and Join under the same name and addresses, of the networks that the node knew last. What was
// there comes back if it cannot join; it is kept in the folder aside if it can. The token of its API stays: it opens
// this node only, no other one has it, and who was given it, as Prometheus, need not hear of a rejoin.
func (d OnDisk) Rejoin(ctx context.Context, r JoinRequest, now time.Time) (
	conf cluster.Config, aside string, err error,
) {
	was, err := membership.Load(r.Dir)
	if err != nil {
		return conf, "", fmt.Errorf("rejoin cluster: %w", err)
	}
	me, _ := was.Member(was.Self) // Load has found it
	r.Node, r.Addrs = was.Self, nil
	for _, n := range was.Networks {
		if ip := me.Addrs[n.Name]; ip != "" {
			r.Addrs = append(r.Addrs, Addr{Network: n.Name, IP: ip})
		}
	}
	if aside, err = putAside(r.Dir, now, TokenFile); err != nil {
		return conf, "", err
	}
	if conf, err = d.Join(ctx, r); err != nil {
		return conf, "", errors.Join(err, comeBack(aside, r.Dir))
	}
	return conf, aside, nil
}

// comeBack undoes leave; the identity goes last. The configuration that a Join in between has stored is
// overwritten.
func comeBack(aside, dir string) error {
	entries, err := os.ReadDir(aside)
	if err != nil {
		return err
	}
	inOrder(entries)
	slices.Reverse(entries)
	for _, e := range entries {
		if err := os.Rename(filepath.Join(aside, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return errors.Join(os.Remove(aside), durable.SyncDir(dir))
}

// config is what cluster.json of the first node holds, but for the key of its member: the identity is not made yet.
func (r InitRequest) config() (cluster.Config, error) {
	switch {
	case r.Port < 1 || r.Port > maxPort:
		return cluster.Config{}, fmt.Errorf("port %d: must be 1 to %d, since the next two are used too", r.Port, maxPort)
	case r.Detection < minDetection || r.Detection > maxDetection:
		return cluster.Config{}, fmt.Errorf("detection %v: must be %v to %v", r.Detection, minDetection, maxDetection)
	}
	if err := cluster.CheckPing(r.Ping); err != nil {
		return cluster.Config{}, err
	}
	conf := cluster.Config{
		Name: r.Cluster, Self: r.Node, Port: r.Port, Detection: r.Detection, Ping: r.Ping,
		Members: []cluster.Member{{Node: r.Node, Addrs: byNetwork(r.Addrs)}},
	}
	for _, a := range r.Addrs {
		conf.Networks = append(conf.Networks, cluster.Network{Name: a.Network})
	}
	key := make([]byte, keySize)
	rand.Read(key) // never fails
	conf.GossipKeys = [][]byte{key}
	return conf, nil
}

// withPort adds the port of a cluster that was made without --port. Anything with a port is taken as it is; an IPv6
// address without one may stand with or without brackets.
func withPort(at string) (string, error) {
	if _, _, err := net.SplitHostPort(at); err == nil {
		return at, nil
	}
	if at == "" {
		return "", errors.New("address of a node: missing")
	}
	if inner, ok := strings.CutPrefix(at, "["); ok {
		at = strings.TrimSuffix(inner, "]")
	}
	return net.JoinHostPort(at, strconv.Itoa(cluster.DefaultPort)), nil
}

// Free fails with pki.ErrExists if dir is that of a member. What cannot be read is no free place either.
func (OnDisk) Free(dir string) error {
	folder := filepath.Join(dir, PKIFolder)
	entries, err := os.ReadDir(folder)
	switch {
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%w: %s holds its certificate: `duet cluster status` shows which, `duet cluster leave` ends the "+
			"membership", pki.ErrExists, folder)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// settle lets admit fill a new identity folder, stores the configuration it returns and only then gives the folder
// its name, which makes it count; all of it is durable then. An identity that counts is never touched; a staged
// one, of a try that was broken off, is thrown away with its keys: it never counted here.
func settle(dir string, admit func(folder string) (cluster.Config, error)) error {
	final, staged := filepath.Join(dir, PKIFolder), filepath.Join(dir, PKIFolder+".new")
	if err := (OnDisk{}).Free(dir); err != nil {
		return err
	}
	if remains(dir) {
		return fmt.Errorf("%s holds the store of an earlier membership: `duet cluster leave` first, which keeps it aside",
			dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(staged); err != nil { // of a try that was broken off
		return err
	}
	conf, err := admit(staged)
	if err != nil {
		return err
	}
	if err := membership.Save(dir, conf); err != nil {
		return err
	}
	return durable.Rename(staged, final)
}
