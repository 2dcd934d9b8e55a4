package libvirt

import (
	"strings"
	"testing"
)

// TestWithoutSecrets: no secret that was planted is left, and what is none is.
func TestWithoutSecrets(t *testing.T) {
	const planted = "hunter2"
	text := `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web01</name>
  <metadata><app:note xmlns:app='x'>root:hunter2</app:note></metadata>
  <sysinfo type='fwcfg'><entry name='opt/init'>user:hunter2</entry></sysinfo>
  <launchSecurity type='sev'><session>hunter2</session></launchSecurity>
  <devices>
    <graphics type='vnc' port='-1' passwd='hunter2' passwdValidTo='2030-01-01T00:00:00'/>
    <graphics type="spice" passwd="hunter2"><listen type='address' address='10.0.0.1'/></graphics>
    <disk type='network'><source protocol='https' name='x'>
      <cookies><cookie name='a'>hunter2</cookie></cookies></source></disk>
  </devices>
  <qemu:commandline><qemu:arg value='-object'/><qemu:arg value='secret,data=hunter2'/>
    <qemu:env name='KEY' value='hunter2'/></qemu:commandline>
</domain>`
	got := string(withoutSecrets([]byte(text)))
	if strings.Contains(got, planted) {
		t.Errorf("a secret is left:\n%s", got)
	}
	for _, want := range []string{"<name>web01</name>", "passwdValidTo='2030-01-01T00:00:00'", "address='10.0.0.1'",
		"name='KEY'", "<metadata>***</metadata>", "</domain>"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is gone:\n%s", want, got)
		}
	}
	if again := string(withoutSecrets([]byte(got))); again != got {
		t.Errorf("hiding twice changes more than once:\n%s", again)
	}
	if got := string(withoutSecrets([]byte("hunter2 <"))); got != hidden {
		t.Errorf("a text that is no XML: %q", got)
	}
}
