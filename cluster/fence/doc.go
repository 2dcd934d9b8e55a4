// Package fence switches a node off from outside, with the fence-agents of ClusterLabs.
//
// A fence agent is a program, fence_NAME, for one kind of device. It reads lines key=value on
// standard input and tells by its exit code what came of it: 0 done; for status 0 on, 2 off;
// everything else is a failure, with the reason on standard error. `fence_NAME -o metadata` lists
// the options. Debian has all of them in one package: apt-get install --no-install-recommends
// fence-agents; ipmitool and openssh-client come on top for fence_ipmilan and fence_virsh.
//
// # What a confirmation means
//
// Off returns nil only if, for every device of one level, the command off ended with 0 and status,
// asked after the last of them, ended with 2. One answer alone is not trusted:
//
//   - off may end with 0 although nothing happened: a power switch that took the order and lost it,
//     an agent that counts another outlet, one power supply of two.
//   - 2 is also what a shell or an interpreter ends with that cannot read its program, so a broken
//     agent says "off" to every question. But then it cannot have said 0 to off.
//
// Nil means: the device said, after Off was called, that the node has no power. It does not say that
// the node stays off; rule 6 of cluster/DESIGN.md keeps a node that comes back from taking part before it has
// met its peer. An error does not say that the node is on: the order may have been carried out.
//
// Options are kept secret unless they are known to be harmless: they reach the agent on standard
// input only, and what the agent prints is cleaned of them. What an agent does with them is its own:
// fence_ipmilan gives the password to ipmitool as an argument, fence_redfish keeps it to itself.
//
// # Examples
//
// IPMI over the network, with a user of privilege operator; lanplus is IPMI 2.0 and nearly always needed:
//
//	{"name": "alpha-bmc", "agent": "fence_ipmilan", "options": {"ip": "10.0.9.1", "username": "duet",
//	 "password": "…", "lanplus": "1", "privlvl": "operator"}}
//
// Redfish; systems_uri always, for without it the agent takes the last system that the device lists, whose ever that
// is; ssl_insecure for a certificate of its own making:
//
//	{"name": "alpha-bmc", "agent": "fence_redfish", "options": {"ip": "10.0.9.1", "username": "duet",
//	 "password": "…", "systems_uri": "/redfish/v1/Systems/1", "ssl_insecure": "1"}}
//
// A node that is itself a VM of another hypervisor, through virsh on it; plug is the name of the domain:
//
//	{"name": "alpha-vm", "agent": "fence_virsh", "options": {"ip": "10.0.9.1", "username": "root",
//	 "identity_file": "/etc/duet/fence_key", "ssh": "1", "plug": "alpha"}}
//
// Two power supplies, with the BMC tried first. A BMC has no power when its node has none, so it should not be alone:
//
//	[[{"name": "alpha-bmc", …}],
//	 [{"name": "pdu-1", "agent": "fence_apc_snmp", "options": {"ip": "10.0.9.11", "community": "…", "plug": "4"}},
//	  {"name": "pdu-2", "agent": "fence_apc_snmp", "options": {"ip": "10.0.9.12", "community": "…", "plug": "4"}}]]
//
// Where two nodes may fence each other at once, give the devices of the preferred one `delay`, in seconds,
// and a Timeout above it.
//
// Files: device.go what is configured, fencer.go what is done with it, run_linux.go one run of an agent, output.go
// what is shown of it, metadata.go what an agent says it needs. An option that may be shown is one more name in
// device.go's shown: all others are taken for secrets.
package fence
