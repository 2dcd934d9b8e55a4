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
  <title>web, root is hunter2</title>
  <description>log in with hunter2</description>
  <os><type arch='x86_64'>hvm</type><kernel>/boot/vmlinuz</kernel><cmdline>ds=nocloud token=hunter2</cmdline>
    <initarg>hunter2</initarg><initenv name='KEY'>hunter2</initenv></os>
  <metadata><app:note xmlns:app='x'>root:hunter2</app:note></metadata>
  <sysinfo type='fwcfg'><entry name='opt/init'>user:hunter2</entry></sysinfo>
  <launchSecurity type='sev'><session>hunter2</session></launchSecurity>
  <devices>
    <graphics type='vnc' port='-1' passwd='hunter2' passwdValidTo='2030-01-01T00:00:00'/>
    <graphics type="spice" passwd="hunter2"><listen type='address' address='10.0.0.1'/></graphics>
    <disk type='network'><source protocol='https' name='x'>
      <cookies><cookie name='a'>hunter2</cookie></cookies></source></disk>
    <disk type='network'><source protocol='https' name='images/x' query='sig=hunter2'/></disk>
    <disk type='network'><source protocol='rbd' name='pool/x:id=admin:key=hunter2:auth_supported=cephx'/></disk>
    <disk type='file'><source file='json:{"driver":"ssh","password":"hunter2"}'/></disk>
    <disk type='network'><source protocol='ftp' name='ftp://joe:hunter2@host/x'/></disk>
    <disk type='file'><source file='/srv/keys/a:b@c.img'/></disk>
  </devices>
  <qemu:commandline><qemu:arg value='-object'/><qemu:arg value='secret,data=hunter2'/>
    <qemu:env name='KEY' value='hunter2'/></qemu:commandline>
  <qemu:override><qemu:device alias='d'><qemu:frontend><qemu:property name='x' type='string' value='hunter2'/>
    </qemu:frontend></qemu:device></qemu:override>
</domain>`
	got := string(withoutSecrets([]byte(text)))
	if strings.Contains(got, planted) {
		t.Errorf("a secret is left:\n%s", got)
	}
	for _, want := range []string{"<name>web01</name>", "passwdValidTo='2030-01-01T00:00:00'", "address='10.0.0.1'",
		"name='KEY'", "<metadata>***</metadata>", "</domain>", "/boot/vmlinuz", "images/x", "/srv/keys/a:b@c.img"} {
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
