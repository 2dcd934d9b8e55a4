package fence

import (
	"strings"
	"testing"
)

// described is the metadata of an agent in short, as fence-agents 4.12 print it.
const described = `<?xml version="1.0" ?>
<resource-agent name="fence_x" shortdesc="x" ><longdesc>x</longdesc><vendor-url>x</vendor-url>
<parameters>
	<parameter name="action" unique="0" required="1"><content type="string" default="reboot" /></parameter>
	<parameter name="login" unique="0" required="1" deprecated="1"><content type="string"  /></parameter>
	<parameter name="username" unique="0" required="1" obsoletes="login"><content type="string"  /></parameter>
	<parameter name="ipport" unique="0" required="1"><content type="integer" default="623"  /></parameter>
	<parameter name="ssl" unique="0" required="0"><content type="boolean" default="1"  /></parameter>
	<parameter name="ssl_insecure" unique="0" required="0"><content type="boolean"  /></parameter>
	<parameter name="power_wait" unique="0" required="0"><content type="second" default="2"  /></parameter>
	<parameter name="method" unique="0" required="0"><content type="select" default="onoff"  >
		<option value="onoff" /><option value="cycle" /></content></parameter>
</parameters>
<actions>ACTIONS</actions>
</resource-agent>
`

const power = `<action name="on" automatic="0"/><action name="off" /><action name="status" />`

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(strings.Replace(described, "ACTIONS", power, 1)))
	f.Add([]byte("<resource-agent><actions><action/></actions>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMetadata(text)
		if err != nil {
			return
		}
		if f := m.faults(good()); len(f) == 0 && (len(m.Parameters) < 3 || len(m.Actions) < 2) {
			t.Errorf("%s is enough for an agent", text)
		}
	})
}
