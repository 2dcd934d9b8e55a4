package libvirt

import "testing"

// TestQemuUser: a VM's own label counts before what libvirt gives to all.
func TestQemuUser(t *testing.T) {
	const stock = `<capabilities><host>
		<secmodel><model>apparmor</model><doi>0</doi></secmodel>
		<secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+107</baselabel><baselabel type='qemu'>+64055:+64055</baselabel></secmodel>
	</host></capabilities>`
	for _, c := range []struct {
		domain string
		want   owner
	}{
		{"<domain type='qemu'/>", owner{64055, 64055}},
		{"<domain type='kvm'/>", owner{64055, 107}},
		{"<domain type='kvm'><seclabel type='dynamic' model='apparmor'><label>libvirt-x</label></seclabel></domain>",
			owner{64055, 107}},
		{"<domain type='kvm'><seclabel type='dynamic' model='dac'><label>+1000:+1001</label></seclabel></domain>",
			owner{1000, 1001}},
		{"<domain type='kvm'><seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel></domain>",
			owner{0, 0}},
		{"<domain type='kvm'><seclabel type='static' model='dac'><label>root:root</label></seclabel></domain>", owner{0, 0}},
		{"<domain type='kvm'><seclabel type='static' model='dac'><label>12:13</label></seclabel></domain>", owner{12, 13}},
		{"<domain type='kvm'><seclabel type='none' model='dac'/></domain>", owner{64055, 107}},
	} {
		domain, err := parseXML([]byte(c.domain))
		if err != nil {
			t.Fatal(err)
		}
		capabilities, err := parseXML([]byte(stock))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := qemuUser(domain, capabilities); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.domain, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "+1", "+1:", "nobody-of-that-name:+1", "+-1:+1", "+1:+99999999999"} {
		if got, err := parseOwner(bad); err == nil {
			t.Errorf("label %q is taken for %+v", bad, got)
		}
	}
}
