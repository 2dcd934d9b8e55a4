package libvirt

import (
	"slices"
	"testing"

	"duet/vmmanager"
)

// TestSecurityModels: what stock Debian and Fedora say.
func TestSecurityModels(t *testing.T) {
	got, err := securityModels([]byte(`<capabilities><host><cpu/>
    <secmodel><model>apparmor</model><doi>0</doi></secmodel>
    <secmodel><model>selinux</model><baselabel type='qemu'>system_u:system_r:svirt_tcg_t:s0</baselabel>
      <baselabel type='kvm'>system_u:system_r:svirt_t:s0</baselabel></secmodel>
    <secmodel><model>dac</model><doi>0</doi>
      <baselabel type='kvm'>+64055:+106</baselabel>
      <baselabel type='qemu'>+64055:+106</baselabel></secmodel></host></capabilities>`))
	want := []vmmanager.SecurityModel{{Model: "apparmor"}, {Model: "selinux", Label: "system_u:system_r:svirt_t:s0"},
		{Model: "dac", Label: "+64055:+106"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := securityModels([]byte("<capabilities>")); err == nil {
		t.Error("half a text was read")
	}
	if v := dotted(9_000_000); v != "9.0.0" {
		t.Error(v)
	}
}
