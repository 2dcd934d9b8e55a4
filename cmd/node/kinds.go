package node

import (
	"context"
	"net"
	"path/filepath"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/mirror"
	"duet/appmodules/orders"
	"duet/appmodules/protect"
	"duet/appmodules/registry"
	"duet/appmodules/restore"
	"duet/appmodules/stage"
	"duet/appmodules/workload"
	"duet/blockrepl/badgerlog"
	"duet/blockrepl/divergence"
	"duet/cluster"
	"duet/cluster/mux"
	"duet/cluster/ping"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/fitness"
	"duet/vmmanager/images"
)

// newKinds is what this node runs: every kind of appmodules.Kinds. A kind is built from the mirrors' workshop and a
// workload; the registry knows it by this table alone.
func (n *Node) newKinds() map[appmodules.Kind]registry.Kind {
	hv := n.cfg.Hypervisor
	return map[appmodules.Kind]registry.Kind{appmodules.KindMirror: {
		Build: func(m appmodules.Module, log func(engine.Transition)) (registry.Runner, error) {
			return n.mirrors.Build(m, workload.NewApplication(m, n.log, n.stages.Of(m)...), log)
		},
	}, appmodules.KindVM: {
		Build: func(m appmodules.Module, log func(engine.Transition)) (registry.Runner, error) {
			return n.mirrors.Build(m, workload.NewVM(workload.VMConfig{Module: m, Node: string(n.self()),
				Endpoints: n.volumes.Endpoints(m), Hypervisor: hv, Logger: n.log,
				Retained: filepath.Join(n.cfg.Dir, "replaced")}), log)
		},
		Define:   workload.Store{Hypervisor: hv}.Define,
		Undefine: workload.Store{Hypervisor: hv}.Undefine,
	}}
}

// parts is what modules are made of on this node. Node has them embedded: what the API asks of a room is promoted.
type parts struct {
	*registry.Registry
	*protect.Works // protect, install, release, return; nil until newWorks
	kinds          map[appmodules.Kind]registry.Kind
	mirrors        *mirror.Workshop // engines, and what they share on a node
	volumes        *mirror.Volumes  // where VMs find their disks: sockets and front ends
	images         *images.Room     // what volumes lie in
	stages         *stage.Remote    // what applications consist of, in duetd apps
	fitness        *fitness.Room    // what each host says of the other's VMs
	orders         *orders.Desk     // operators' commands
	restores       *restore.Room    // gives modules to a peer that lacks them
	beyond         ping.Watch       // what answers beside the other nodes
}

// newParts builds them but works. The list of modules is empty until it is loaded. The functions that are handed
// over use parts that are set further down or by build: no room calls them before Start.
func (n *Node) newParts(keeper *divergence.Keeper) {
	self := n.self()
	n.fitness = fitness.New(fitness.Config{Self: self, Sockets: n.cfg.RunDir, Hypervisor: n.cfg.Hypervisor,
		Modules: n.judged,
		All:     func() []appmodules.Module { return n.Modules() },
		Left:    func() []appmodules.Module { return n.Works.Left() },
		// What a protect refuses here when it is carried out it refuses when it is asked for.
		MayClear: func(module string, from cluster.NodeID) error { return n.orders.MayClear(module, from) },
		MayHost:  func(module string, p []protect.Place) error { return n.images.MayHost(module, p) },
		Call: func(ctx context.Context, node cluster.NodeID, q fitness.Question, found *[]vmmanager.Finding) error {
			return n.rpcTo(ctx, node, "judge", q, found)
		},
		Logger: n.log})
	n.stages = stage.Dial(n.cfg.Apps, n.cfg.Disk)
	n.volumes = mirror.NewVolumes(mirror.VolumesConfig{Self: self, Dir: n.cfg.RunDir, Sockets: n.cfg.Sockets,
		Runs: n.cfg.Hypervisor.Runs, Behind: n.stages.Behind, Root: n.cfg.AdmitRoot, Keeper: keeper,
		Log: n.store.Log, Logger: n.log})
	n.mirrors = mirror.New(mirror.Config{Cluster: n.cluster, View: n.gossip.View, Call: n.rpcTo,
		Unknown: func(node cluster.NodeID, module string) { n.restores.Unknown(node, module) },
		Dial: func(ctx context.Context, node cluster.NodeID) (net.Conn, error) {
			return n.mux.Dial(ctx, node, serviceReplication, mux.Replication)
		},
		Notices: notices{n.fitness, n}, Fence: n.Desk.Off, CanFence: n.Desk.Can, Witnesses: n.witnesses,
		Store:   func(module string) engine.Store { return registry.EngineStore(n.store, module) },
		Volumes: n.volumes, Boot: mirror.BootID(), Logger: n.log, Joins: n.tasks.Protects})
	n.kinds = n.newKinds()
	n.Registry = registry.New(registry.Config{Cluster: n.cluster, Journals: filepath.Join(n.cfg.Dir, "log"),
		Store: n.store, Kinds: n.kinds, Closed: n.volumes.Remove, Life: n.ctx, Spawn: n.spawn, Logger: n.log,
		Send: func(ctx context.Context, node cluster.NodeID, s registry.Stored) error {
			return n.rpcTo(ctx, node, "modules/"+s.Module.Name+"/config", s, nil)
		},
		Transition: func(t engine.Transition) {
			n.figures.Count(t)
			n.sentry.Changed()
		},
		Gone: func(name string) {
			n.figures.Forget(name)
			n.restores.Forget(name)
		}})
	n.orders = orders.New(orders.Config{Self: self, Registry: n.Registry, MayMove: n.fitness.MayMove, Call: n.rpcTo,
		Status: func(m *registry.Entry) []api.NodeState { return n.moduleStatus(m).Nodes }})
	n.restores = restore.New(restore.Config{Self: self, Registry: n.Registry, Run: n.run, Spawn: n.spawn, Call: n.rpcTo,
		Busy: func(module string) bool { return n.Works.Busy(module) }, Undo: peers{n}.undo, Version: n.plane.Version,
		Start: func(ctx context.Context, m *registry.Entry, node cluster.NodeID) error {
			return n.orders.Command(ctx, m, string(node), appmodules.CmdStart, false)
		}, Logger: n.log})
	n.images = images.New(images.Config{Self: self, Dir: n.cfg.Dir, Allowed: n.cfg.ImageDirs,
		Store: badgerlog.Values{Store: n.store}, Modules: n.Registry.Modules, Taken: n.fitness.Taken})
}

// judged are the modules whose VMs this node judges: whether this host would start each.
func (n *Node) judged() (out []fitness.Module) {
	for _, m := range n.Guests() {
		out = append(out, fitness.Module{Name: m.Module.Name, VM: m.Module.Subject(), Engine: m.Engine})
	}
	return out
}

// states are those of the mirrors here.
func (n *Node) states() (out []engine.State) {
	for _, m := range n.Mirrors() {
		out = append(out, m.Engine.State())
	}
	return out
}
