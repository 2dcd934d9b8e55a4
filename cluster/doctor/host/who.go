package host

import (
	"fmt"
	"os/user"
	"strings"
)

// Who writes a label of libvirt's model dac, such as +64055:+106, with the names that this computer has for the two
// numbers: libvirt-qemu:kvm (64055:106). Without a name for the user the numbers remain; a label of another form
// comes back as it is. It reads the computer's database of users, which may be a service in the network.
func Who(label string) string {
	uid, gid, ok := strings.Cut(label, ":")
	uid, gid = strings.TrimPrefix(uid, "+"), strings.TrimPrefix(gid, "+")
	if !ok || uid == "" || gid == "" {
		return label
	}
	u, err := user.LookupId(uid)
	if err != nil {
		return uid + ":" + gid
	}
	group := gid
	if g, err := user.LookupGroupId(gid); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("%s:%s (%s:%s)", u.Username, group, uid, gid)
}
